"""What the documents name exists: tests, decisions, files, public names, commands and flags."""

import ast
import importlib
import inspect
import re
import shlex

import pytest
import yaml
from absl import flags

import ssd_keras
from ssd_keras.__main__ import COMMANDS
from tests.cli import loaded_command
from tests.processes import ROOT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "data/*.md", "export/*.md", "export/serving/*.md")
    for path in ROOT.glob(pattern)
)
NOTES = ROOT / "BUILD_NOTES.md"
PUBLIC = {f"ssd_keras.{name}" for name in ssd_keras.__all__}
every_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)

# Scripts that pass their arguments to a command.
SCRIPTS = {
    "data/prepare.py": "prepare",
    "data/preview.py": "preview",
    "export/saved_model.py": "export saved_model",
    "export/tflite.py": "export tflite",
    "export/verify.py": "verify",
}
FOLDERS = "ssd_keras|tests|data|export|docs|scripts|.github|.ci".replace(".", r"\.")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)


def names_in(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}


def python_blocks(path):
    return [code for language, code in FENCED.findall(path.read_text()) if language == "python"]


def shell_lines(path):
    """Lines of the code blocks, continued ones joined, and the code in running text."""
    text = path.read_text()
    blocks = [code for language, code in FENCED.findall(text) if language != "python"]
    prose = FENCED.sub("", text)
    if not re.search(r"^\d+\. ", prose, re.MULTILINE):  # in lists, four blanks continue an item
        blocks += INDENTED.findall(prose)
        prose = INDENTED.sub("", prose)
    for block in blocks:
        yield from re.sub(r"\s*\\\n\s*", " ", block).splitlines()
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose))


def words_of(line):
    """The words of a shell line, up to a comment, a pipe or the next command."""
    try:
        words = shlex.split(line.strip().removeprefix("$ "), comments=True)
    except ValueError:  # code of another kind
        return []
    ends = (k for k, word in enumerate(words) if word in ("|", "&&", ";", ">"))
    return words[: next(ends, len(words))]


def script_flags(path):
    """Names in `DEFINE_...("name"` and `add_argument("--name"` of a script."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    for call in calls:
        name = getattr(call.func, "attr", "")
        if name.startswith("DEFINE_") or name == "add_argument":
            yield call.args[0].value.removeprefix("--")


@pytest.fixture(scope="module")
def known_flags():
    """The flags of every command, and of every script that has its own."""
    known = {}
    absl = set(flags.FLAGS)
    for name in COMMANDS:
        with loaded_command(name):
            own = set(flags.FLAGS) - absl
            known[name] = own | {f"no{flag}" for flag in own if flags.FLAGS[flag].boolean}
    for path in (
        p for folder in ("data", "export", "scripts") for p in ROOT.glob(f"{folder}/**/*.py")
    ):
        name = str(path.relative_to(ROOT))
        known[name] = known[SCRIPTS[name]] if name in SCRIPTS else set(script_flags(path))
    return {name: found | {"help", "verbosity"} for name, found in known.items()}


def called(words):
    """Returns the command or script that a shell line calls, and its arguments."""
    for k, word in enumerate(words):
        behind = words[k + 1 :]
        if word.split("/")[-1] == "ssd-keras" and behind and behind[0][0].islower():
            count = 2 if behind[0] == "export" else 1
            return " ".join(behind[:count]), behind[count:]
        if word.startswith(("data/", "export/", "scripts/")) and word.endswith(".py"):
            return word, behind
    return None, words


@every_document
def test_cited_tests_exist(path):
    text = path.read_text()
    cited = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(cited) == len(re.findall(r"::\s*test_", text))  # no test is cited in another form
    tests = {
        file: names_in(ROOT / "tests" / file)
        for file, _ in cited
        if (ROOT / "tests" / file).is_file()
    }
    assert [f"{file}::{test}" for file, test in cited if test not in tests.get(file, ())] == []


def test_decisions_are_numbered_in_order_and_cited_by_numbers_that_exist():
    numbers = [int(n) for n in re.findall(r"^(\d+)\. ", NOTES.read_text(), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 100
    for path in [*DOCUMENTS, *ROOT.glob("ssd_keras/**/*.py")]:
        text = path.read_text()
        found = re.findall(r"[Dd]ecisions? (\d+)", text) + re.findall(
            r"BUILD_NOTES\.md,? (\d+)", text
        )
        if path == NOTES:
            found += re.findall(r"\| (\d+) \|$", text, re.MULTILINE)
        assert [n for n in found if int(n) > len(numbers)] == [], path


@every_document
def test_named_files_exist(path):
    text = path.read_text()
    paths = re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\w)(?!::|[\w./-])", text)
    missing = [name for name in paths if not (ROOT / name).exists()]
    prose = FENCED.sub("", text)
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
    links += re.findall(r"`([\w-]+\.(?:md|cff|toml))`", prose)
    for link in links:
        if not re.match(r"\w+:", link) and not (path.parent / link).exists():
            missing.append(link)
    assert missing == []


@every_document
def test_python_blocks_use_what_exists(path):
    blocks = python_blocks(path)
    if path.name == "README.md" and path.parent == ROOT:
        assert blocks
    for code in blocks:
        tree = ast.parse(code)
        compile(tree, path, "exec")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("ssd_keras"):
                try:
                    module = importlib.import_module(node.module)
                except ModuleNotFoundError as error:
                    if error.name == "apache_beam":  # an extra that is not part of `dev`
                        continue
                    raise
                assert [n.name for n in node.names if not hasattr(module, n.name)] == []
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ssd_keras":
                assert node.attr in ssd_keras.__all__
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in PUBLIC:
                function = getattr(ssd_keras, node.func.attr)
                arguments = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(function).bind(*node.args, **arguments)


@every_document
def test_commands_and_flags_exist(path, known_flags):
    everywhere = set().union(*known_flags.values())
    wrong = []
    for line in shell_lines(path):
        words = words_of(line)
        if words[:2] in (["pip", "install"], ["npm", "install"]):
            continue
        name, behind = called(words)
        if line.startswith("#"):  # a comment in a code block
            used, known = re.findall(r"--\w+", line), everywhere
        elif name is None:  # without a command, the flag may be of any command
            used, known = [w for w in words[:1] if re.match(r"--\w", w)], everywhere
        elif name.split()[0] == "help":
            continue
        elif name not in known_flags:
            wrong.append(f"{name} in {line!r}")
            continue
        else:
            used, known = [w for w in behind if w.startswith("--")], known_flags[name]
        names = (word.removeprefix("--").split("=")[0] for word in used)
        wrong += [f"--{flag} in {line!r}" for flag in names if flag not in known]
    assert wrong == []


def test_readme_names_every_command():
    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"`ssd-keras {name}`" not in text] == []


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ssd_keras.__version__
    assert f"## {ssd_keras.__version__}" in (ROOT / "CHANGELOG.md").read_text()
