"""Signals, a full disk and unusual file names, with the commands as child processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ssd_keras.data.card import read_card
from ssd_keras.data.records import read_samples
from tests.data_sets import encoded, noise
from tests.export.models import small_model
from tests.processes import ROOT, Program
from tests.tiny import SSD64

# Names with blanks, quotes, line breaks, and bytes that are not valid UTF-8.
ODD_NAMES = (b"a b.jpg", b"new\nline.jpg", b"'\"$x;.jpg", b"caf\xe9.jpg", "日本.jpg".encode())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.keras"
    small_model(SSD64).save(path)
    return path


def run(*words, **environment):
    """The exit code, stdout and stderr of a command. Python reads LC_ALL when it starts."""
    done = subprocess.run(
        [sys.executable, "-m", "ssd_keras", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
    )
    return done.returncode, done.stdout, done.stderr.decode(errors="backslashreplace")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["detect", "export saved_model"])
def test_a_stopped_command_leaves_nothing_half_written(model, tmp_path, command, number, code):
    out = tmp_path / "out"
    words = [*command.split(), f"--model={model}", f"--out={out}"]
    if command == "detect":
        (tmp_path / "in").mkdir()
        for k in range(400):
            (tmp_path / "in" / f"{k}.jpg").write_bytes(encoded((400, 300)))
        words += ["--batch_size=1", str(tmp_path / "in")]
    process = Program(None, words)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("**/out*/*.jpg" if command == "detect" else ".*out*")):
        assert process.poll() is None, process.output()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "\ninterrupted: " in stderr
    assert "Traceback" not in stderr
    assert not list(tmp_path.glob("**/.*"))
    assert not (out / "detections.jsonl").exists()
    assert command == "detect" or not out.exists()


@pytest.mark.parametrize("command", ["prepare", "detect", "export saved_model"])
def test_a_full_disk_is_named(model, tmp_path, command):
    """A limit on the size of files simulates the full disk."""
    out = tmp_path / "out"
    words = [*command.split(), f"--out={out}"]
    if command == "prepare":
        words += ["--source=shapes", "--num_images=60", "--shards=1"]
    else:
        words += [f"--model={model}"]
    if command == "detect":
        (tmp_path / "a.png").write_bytes(noise(0, "PNG", (300, 300)))
        words += [str(tmp_path / "a.png")]
    _, stderr = (process := Program(None, words, limit=50_000)).communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert stderr.startswith("error: "), stderr
    assert "File too large; free space, or write to another disk" in stderr
    assert str(out) in stderr
    assert not list(tmp_path.glob("**/.*"))
    assert not (out / "card.json").exists()
    assert command != "export saved_model" or not out.exists()


@pytest.mark.parametrize("language", ["C", "C.UTF-8"])
def test_odd_file_names(model, tmp_path, language):
    environment = {"LC_ALL": language, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    folder = os.fsencode(tmp_path) + b"/s\xe9t"
    for part in (b"images", b"labels"):
        os.makedirs(os.path.join(folder, part))
    for name in (*ODD_NAMES, b"broken\xff.jpg"):
        path = os.path.join(folder, b"images", name)
        with open(path, "wb") as file:
            file.write(b"no image" if name.startswith(b"broken") else encoded())
        with open(os.path.join(folder, b"labels", name[:-4] + b".txt"), "wb") as file:
            file.write(b"0 0.5 0.5 0.5 0.5\n")
    with open(os.path.join(folder, b"classes.txt"), "wb") as file:
        file.write("café\n".encode())
    records, found = tmp_path / "records", tmp_path / "found"
    words = ["prepare", "--source=yolo", b"--path=" + folder, f"--out={records}", "--shards=1"]
    returned, _, stderr = run(*words, **environment)
    assert (returned, stderr) == (0, "")
    assert read_card(records).labels == ("café",)
    ids = {sample.image_id for sample in read_samples(records)}
    assert ids == {"a b", "new\nline", "'\"$x;", "caf\\xe9", "日本"}
    words = ["detect", f"--model={model}", f"--out={found}", os.path.join(folder, b"images")]
    returned, stdout, stderr = run(*words, **environment)
    assert returned == 2, stderr
    assert stderr.count("\n") == 1
    assert "broken" in stderr
    assert b"5 images" in stdout
    lines = (found / "detections.jsonl").read_text("ascii").splitlines()
    pictures = {os.fsencode(json.loads(line)["picture"]) for line in lines}
    assert pictures == set(ODD_NAMES)
    assert all(os.path.exists(os.path.join(os.fsencode(found), name)) for name in pictures)
