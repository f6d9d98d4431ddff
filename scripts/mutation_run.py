"""Changes the code in small ways, one at a time, and lists the changes that no test notices.

    python scripts/mutation_run.py --changes=20 ssd_keras/matching.py tests/test_matching.py

Each change (another number, comparison, operator or constant) runs in a fork with a copy of the
repository. TensorFlow is imported once, before the forks. If the tests do not notice a change,
either the changed code is equivalent, or a test is missing.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 240  # limit of a test run; a change may make a loop endless

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {
    "minimum": "maximum",
    "maximum": "minimum",
    "reduce_max": "reduce_min",
    "reduce_min": "reduce_max",
    "reduce_sum": "reduce_mean",
    "argmax": "argmin",
    "floor": "round",
    "round": "floor",
}


def changes(node):
    """Yields functions that change a node of a syntax tree in place."""
    if isinstance(node, ast.Constant) and not isinstance(node.value, str | bytes | None):
        if isinstance(node.value, bool):
            yield lambda n: setattr(n, "value", not n.value)
        elif isinstance(node.value, int):
            yield lambda n: setattr(n, "value", n.value + 1)
        elif isinstance(node.value, float):
            yield lambda n: setattr(n, "value", n.value * 1.1 if n.value else 0.1)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield lambda n: n.ops.__setitem__(0, COMPARISONS[type(n.ops[0])]())
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield lambda n: setattr(n, "op", OPERATORS[type(n.op)]())
    elif isinstance(node, ast.BoolOp):
        yield lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert | ast.Not):
        yield lambda n: setattr(n, "op", ast.UAdd() if isinstance(n.op, ast.USub) else ast.Not())
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield lambda n: setattr(n, "attr", NAMES[n.attr])


def in_messages(tree):
    """Yields the nodes of `raise` statements, annotations and f-strings, which are not changed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.arg):
            yield from ast.walk(node)
        elif isinstance(node, ast.FunctionDef) and node.returns:
            yield from ast.walk(node.returns)
        elif isinstance(node, ast.AnnAssign):
            yield from ast.walk(node.annotation)


def mutants(source):
    """Yields (line, old, new, changed source) for every possible change."""
    tree = ast.parse(source)
    left_out = {id(node) for node in in_messages(tree)}
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in left_out:
            continue
        for change in changes(node):
            changed = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(changed)) if i == index)
            change(target)
            with contextlib.suppress(Exception):
                yield node.lineno, ast.unparse(node), ast.unparse(target), ast.unparse(changed)


def noticed(folder, module, text, tests):
    """Runs the tests in a fork on a changed module; returns True if they fail."""
    (folder / module).write_text(text)
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.alarm(SECONDS)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", *tests])))
    _, status = os.waitpid(child, 0)
    return status != 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    importlib.import_module("keras")
    source = (ROOT / options.module).read_text()
    found = list(mutants(source))
    chosen = random.Random(options.seed).sample(found, min(options.changes, len(found)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "copy")
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        sys.dont_write_bytecode = True
        assert not noticed(folder, options.module, ast.unparse(ast.parse(source)), options.tests)
        survivors = 0
        for line, old, new, text in chosen:
            if not noticed(folder, options.module, text, options.tests):
                survivors += 1
                print(f"{options.module}:{line}: {old[:80]} -> {new[:80]}", flush=True)
    print(f"{options.module}: {len(chosen) - survivors} of {len(chosen)} noticed", flush=True)


if __name__ == "__main__":
    main()
