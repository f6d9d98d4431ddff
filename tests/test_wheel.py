"""Prepares, trains, exports and detects with the wheel, in an empty folder without the repository.

The environment is new, but uses the dependencies of the current one, so that nothing is downloaded.
`make check-wheel` does the same with dependencies from the package index and without extras.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from PIL import Image

from tests.processes import ROOT

TRAIN = (
    "--weights=random --width=0.03 --batch_size=1 --iterations=1 --eval_every=1 --seed=3 "
    "--augmentation=none --optimizer=adam"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


# Each command is a fork of one process, which has imported TensorFlow and Keras.
COMMANDS = """
import json, os, sys
import keras, tensorflow
from ssd_keras.__main__ import main
for words in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        sys.argv = ["ssd-keras", *words]
        sys.exit(main())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        sys.exit(f"{words} ended with {code}")
"""


@dataclasses.dataclass(frozen=True)
class Installed:
    """The wheel in an environment, and an empty folder to work in."""

    bin: pathlib.Path
    site: pathlib.Path
    folder: pathlib.Path

    def run(self, name, *words):
        done = subprocess.run(
            [self.bin / name, *words],
            cwd=self.folder,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / "lib" / version / "site-packages"
    # Only this folder: the .pth files in it, such as that of the editable install, do not count.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    return Installed(environment / "bin", site, tmp_path_factory.mktemp("empty"))


def test_the_wheel_holds_the_package_and_the_folders_that_people_copy(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "ssd_keras", "data/labels", "export/serving"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    for name in tracked:
        name = name.replace("data/labels", "ssd_keras/shipped/labels")
        assert name.replace("export/serving", "ssd_keras/shipped/serving") in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ssd_keras"}


def test_from_nothing_to_detections(installed):
    folder = installed.folder
    Image.new("RGB", (80, 60), (200, 100, 50)).save(folder / "picture.jpg")
    commands = [
        "prepare --source=shapes --num_images=2 --out=records --shards=1",
        f"train --records=records --run_dir=run {TRAIN}",
        "export saved_model --model=run/best.keras --out=detector",
        "detect --model=detector --out=found picture.jpg",
    ]
    done = installed.run("python", "-c", COMMANDS, json.dumps([c.split() for c in commands]))
    assert "1 images" in done.stdout.splitlines()[-1]
    (line,) = (folder / "found" / "detections.jsonl").read_text().splitlines()
    assert json.loads(line)["picture"] == "picture.jpg"


def test_the_script_and_the_files_of_the_wheel(installed):
    assert installed.run("ssd-keras", "serving-files", "--out=serving").stderr == ""
    assert (installed.folder / "serving" / "browser" / "index.html").is_file()
    assert (installed.site / "ssd_keras" / "shipped" / "labels" / "coco.txt").is_file()
    code = "import ssd_keras; print(len(ssd_keras.read_labels('coco')), ssd_keras.__file__)"
    count, path = installed.run("python", "-c", code).stdout.split()
    assert count == "80"
    assert path.startswith(str(installed.site))
