"""The command line as a user sees it: the overview, help, quiet output, errors and Ctrl-C."""

import dataclasses
import importlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from ssd_keras.__main__ import COMMANDS
from ssd_keras.commands import common
from ssd_keras.commands.recipe_flags import field_help
from ssd_keras.training.recipe import Recipe
from tests.cli import loaded_command
from tests.processes import ROOT, Program, python, ssd_keras


def test_the_overview_names_every_command_and_its_file_exists():
    done = ssd_keras("help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
        assert (ROOT / "ssd_keras/commands" / f"{re.sub('[ -]', '_', name)}.py").is_file()
    files = {path.stem for path in (ROOT / "ssd_keras/commands").glob("*.py")}
    commands = {re.sub("[ -]", "_", name) for name in COMMANDS}
    assert files - commands == {"__init__", "beam_flags", "common", "recipe_flags"}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["trian"], 2, "error: unknown command 'trian': did you mean train?"),
        (["export"], 2, "error: export needs a format: ssd-keras export saved_model, or"),
        (["fly"], 2, "error: unknown command 'fly': it must be one of prepare, preview,"),
        ([], 2, "usage: ssd-keras COMMAND"),
        (["--version"], 0, "0.1.0"),
    ],
)
def test_words_that_are_no_command(words, code, text):
    done = ssd_keras(*words)
    assert done.returncode == code
    assert text in done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_example_and_every_flag(name):
    with loaded_command(name) as module:
        text = common.usage(module, name)
        assert f"\n    ssd-keras {name}" in text
        flags = [flag.name for flag in _flags_of(module)]
    assert flags or name == "recipes"
    for flag in flags:
        assert re.search(rf"\n  --(\[no\])?{flag}\b", text), flag
    assert "<" not in text.replace("<name>", "")  # absl's list of values is not repeated
    assert max(map(len, text.splitlines())) <= 120


def _flags_of(module):
    found = importlib.import_module("absl.flags").FLAGS.flags_by_module_dict()
    return found.get(module.__name__, [])


def test_every_field_of_a_recipe_has_a_help_text():
    texts = field_help(Recipe)
    for field in dataclasses.fields(Recipe):
        assert len(texts[field.name]) > 10, field.name


def test_a_command_prints_its_result_only(tmp_path):
    """No line of TensorFlow's start-up; with --verbosity=0 they are there."""

    def run(*words):
        command = [sys.executable, "-m", "ssd_keras", "prepare", "--source=shapes", *words]
        return subprocess.run(
            [*command, "--num_images=1"], cwd=ROOT, capture_output=True, text=True
        )

    done = run(f"--out={tmp_path / 'a'}")
    assert done.returncode == 0
    assert done.stderr == ""
    loud = run(f"--out={tmp_path / 'b'}", "--verbosity=0")
    assert loud.returncode == 0
    assert "I0000" in loud.stderr


def test_the_thin_scripts_are_the_same_commands(tmp_path):
    scripts = ("data/prepare.py", "data/preview.py", "export/saved_model.py", "export/tflite.py")
    for script in (*scripts, "export/verify.py"):
        path = ROOT / script
        name = re.search(r'"-m", "ssd_keras", (.*), \*sys', path.read_text())[1]
        assert re.sub('[",]', "", name) in COMMANDS
        assert path.stem in name
    done = subprocess.run(
        [sys.executable, ROOT / "data/prepare.py", "--source=shapes", "--path=x", "--out=y"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "error: --path is not used by --source=shapes: remove it\n"


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--shards=two", "flag --shards=two: invalid literal for int() with base 10: 'two'"),
        ("--shrad=2", "Unknown command line flag 'shrad'. Did you mean: shard, shards ?"),
    ],
)
def test_a_wrong_flag_is_one_line(flag, reason):
    done = ssd_keras("prepare", flag)
    assert done.returncode == 1
    assert done.stdout == ""
    help_hint = "(ssd-keras prepare --help lists the flags)"
    assert done.stderr == f"error: {reason} {help_hint}\n"


def test_a_missing_flag_is_one_line():
    done = ssd_keras("benchmark")
    assert done.returncode == 1
    missing = "flag --model=None: Flag --model must have a value other than None."
    assert done.stderr == f"error: {missing} (ssd-keras benchmark --help lists the flags)\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_says_what_was_kept(tmp_path, number, code):
    out = tmp_path / "records"
    words = ("prepare", "--source=shapes", "--num_images=100000", f"--out={out}")
    process = Program(None, words)
    deadline = time.monotonic() + 60
    while not (out.is_dir() and any(path.stat().st_size for path in out.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    kept = f"the records in {out} are incomplete; run the command again"
    assert stderr == f"\ninterrupted: {kept}\n"


def test_a_missing_extra_is_named(tmp_path):
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda n, *a: None if n == "ai_edge_litert" else find(n, *a)
from ssd_keras.__main__ import main
main(["export", "tflite", "--model=m.keras", "--out={tmp_path}/d.tflite"])
"""
    done = python(code)
    assert done.returncode == 1
    assert "error: a TFLite file needs ai_edge_litert: pip install 'ssd-keras[tflite]'" in (
        done.stderr
    )
    assert "Traceback" not in done.stderr
