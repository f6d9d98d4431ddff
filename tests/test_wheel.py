"""Prepares, trains, exports and detects with the wheel, in an empty folder without the repository.

The environment is new, but uses the dependencies of the current one, so that nothing is downloaded.
`make check-wheel` does the same with dependencies from the package index and without extras.
"""

import json
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from tests.cli import ROOT

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


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """`ssd-keras` of the wheel, run in an empty folder; returns its stdout."""
    folder = tmp_path_factory.mktemp("empty")
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / "lib" / version / "site-packages"
    # Only this folder: the .pth files in it, such as that of the editable install, do not count.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)

    def run(*words):
        done = subprocess.run(
            [environment / "bin" / "ssd-keras", *words], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    run.folder, run.site = folder, site
    return run


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


def test_from_nothing_to_detections(command):
    command("prepare", "--source=shapes", "--num_images=2", "--out=records", "--shards=1")
    command("train", "--records=records", "--run_dir=run", *TRAIN.split())
    command("export", "saved_model", "--model=run/best.keras", "--out=detector")
    command("serving-files", "--out=serving")
    assert (command.folder / "serving" / "browser" / "index.html").is_file()
    assert "detections" in command("detect", "--model=detector", "--out=found", _picture(command))
    (line,) = (command.folder / "found" / "detections.jsonl").read_text().splitlines()
    assert json.loads(line)["picture"] == "picture.jpg"


def test_label_lists_are_known_by_name(command):
    assert (command.site / "ssd_keras" / "shipped" / "labels" / "coco.txt").is_file()
    code = "import ssd_keras; print(len(ssd_keras.read_labels('coco')), ssd_keras.__file__)"
    python = command.site.parents[2] / "bin" / "python"
    done = subprocess.run(
        [python, "-c", code], cwd=command.folder, capture_output=True, text=True, check=True
    )
    count, path = done.stdout.split()
    assert count == "80"
    assert path.startswith(str(command.site))


def _picture(command):
    """A picture in the folder."""
    from PIL import Image

    Image.new("RGB", (80, 60), (200, 100, 50)).save(command.folder / "picture.jpg")
    return "picture.jpg"
