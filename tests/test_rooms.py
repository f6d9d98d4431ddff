"""The rooms of the package: the order of imports, and the modules that an import loads."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import ssd_keras
from tests.processes import ROOT

PACKAGE = ROOT / "ssd_keras"

# Each room may import itself and those before it. "" stands for the flat modules.
CHAIN = (
    "",
    "weights",
    "model",
    "augmentation",
    "data",
    "export",
    "inference",
    "evaluation",
    "training",
    "commands",
    "__main__",
)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(module):
    """Returns the position of the room of a module, such as "weights.load", in the chain."""
    first = module.split(".")[0]
    return CHAIN.index(first) if first in CHAIN else 0


def imported(path):
    """Modules of the package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (n.removeprefix("ssd_keras.") for n in names if n.startswith("ssd_keras."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_imports_a_later_room_or_is_too_long(path):
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    late = [name for name in imported(path) if room(name) > room(module)]
    assert not late, f"{module} imports {late}, which stand later in the chain"
    assert len(path.read_text().splitlines()) <= 350


def test_a_function_never_hides_its_module():
    """`from ssd_keras.x import x` would make the module `x` unreachable by attribute."""
    for path in FILES:
        defined = {n.name for n in ast.parse(path.read_text()).body if hasattr(n, "name")}
        assert path.stem not in defined, path


def test_public_names_differ():
    """No two public classes or functions of the package have one name."""
    places = {}
    for path in FILES:
        if path.parent.name == "commands":
            continue  # each command has a main
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        (
            "import ssd_keras",
            "ai_edge_litert tensorflow_datasets matplotlib pycocotools PIL "
            "ssd_keras.export ssd_keras.inference ssd_keras.evaluation",
        ),
        (
            "import ssd_keras.training.run",
            "ai_edge_litert tensorflow_datasets matplotlib flatbuffers.builder "
            "ssd_keras.export.tflite ssd_keras.export.saved_model",
        ),
    ],
)
def test_what_an_import_does_not_load(code, unwanted):
    report = f"""
import sys, keras, tensorflow
before = set(sys.modules)  # TensorFlow and Keras load some of them, if they are installed
{code}
print(*(name for name in {unwanted.split()!r} if name in set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_file_is_in_a_package():
    """Without __init__.py a folder would be left out of the wheel."""
    for path in FILES:
        assert (path.parent / "__init__.py").is_file()
    assert pathlib.Path(PACKAGE, "py.typed").is_file()


def test_another_backend_of_keras_is_refused_in_one_sentence():
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", "import ssd_keras"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ssd_keras needs the TensorFlow backend")
    assert "not 'jax'" in last


@pytest.mark.parametrize(
    ("variable", "file", "backend"),
    [
        (None, '{"backend": "torch"}', "torch"),
        ("tensorflow", '{"backend": "torch"}', "tensorflow"),
        ("", '{"backend": "torch"}', "torch"),
        ("jax", None, "jax"),
        (None, None, "tensorflow"),
        (None, '{"floatx": "float32"}', "tensorflow"),
        (None, "[damaged", "tensorflow"),
    ],
)
def test_the_backend_is_read_as_keras_reads_it(variable, file, backend, tmp_path, monkeypatch):
    """The environment variable goes before the file keras.json in the folder KERAS_HOME."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if variable is not None:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    if backend == "tensorflow":
        ssd_keras._check_backend()
        return
    with pytest.raises(ImportError, match=f"of Keras, not '{backend}'"):
        ssd_keras._check_backend()


def test_the_backend_of_a_home_folder_is_found(tmp_path, monkeypatch):
    """Without KERAS_HOME, Keras reads ~/.keras/keras.json."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"backend": "jax"}')
    with pytest.raises(ImportError, match="not 'jax'"):
        ssd_keras._check_backend()
