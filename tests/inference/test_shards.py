import json

import numpy as np
import pytest

from ssd_keras.inference import shards
from ssd_keras.inference.detector import Detector
from ssd_keras.inference.shards import detect_shard, split_shards
from ssd_keras.shards import parse_shard, shard_of
from tests.data_sets import noise, write


def run_pixels(images):
    """Returns a detection whose score depends only on the image."""
    return [
        {
            "boxes": np.float32([[0, 0, 0.5, 0.5]]),
            "scores": np.float32([image.mean() / 255]),
            "classes": np.int32([1]),
        }
        for image in images
    ]


DETECTOR = Detector(("cat",), None, None, run_pixels)


@pytest.fixture
def paths(tmp_path):
    for k in range(20):
        write(tmp_path / "in" / f"{k % 2}" / f"{k}.png", noise(k, "PNG"))
    write(tmp_path / "in" / "broken.jpg", b"no image")
    return sorted((tmp_path / "in").rglob("*.*"))


def run_shard(detector, paths, out, index, count, **options):
    return detect_shard(detector, split_shards(paths, count)[index], out, index, count, **options)


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_parse():
    assert parse_shard("3/16") == (3, 16)
    for text in ("16/16", "1", "a/b", "1/0", "-1/4"):
        with pytest.raises(ValueError, match="must be k/n with k from 0 to n - 1"):
            parse_shard(text)


def test_shard_of_a_name_never_changes():
    """Modulo 16, the SHA-256 of "a.jpg" (from `sha256sum`) is its last hexadecimal digit."""
    assert shard_of("a.jpg", 16) == int(
        "509b0d4641a7c3ba088ffa28559d1f57207ea980447bc1773b1d406d788386ee"[-1], 16
    )


def test_shards_cover_all_files_once(paths, tmp_path):
    for k in range(4):
        run_shard(DETECTOR, paths, tmp_path / "out", k, 4, batch_size=3)
    lines, dead = [], []
    for path in sorted((tmp_path / "out").iterdir()):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        (lines if path.name.startswith("detections") else dead).extend(records)
    assert sorted(line["file"] for line in lines) == sorted(f"{k % 2}/{k}.png" for k in range(20))
    assert dead == [{"file": "broken.jpg", "reason": "cannot be decoded"}]
    assert len(list((tmp_path / "out").iterdir())) == 8


def test_what_exists_is_skipped_and_what_is_missing_is_made_again(paths, tmp_path):
    for k in range(3):
        run_shard(DETECTOR, paths, tmp_path / "out", k, 3)
    before = content(tmp_path / "out")
    (tmp_path / "out" / "detections-00001-of-00003.jsonl").unlink()
    (tmp_path / "out" / ".17.detections-00001-of-00003.jsonl").touch()  # of a killed job
    summaries = [run_shard(DETECTOR, paths, tmp_path / "out", k, 3) for k in range(3)]
    assert [s.existed for s in summaries] == [True, False, True]
    assert content(tmp_path / "out") == before  # byte for byte
    assert str(summaries[0]).endswith("exists: skipped")


def test_a_failed_shard_leaves_nothing(paths, tmp_path):
    def fail(images):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        run_shard(Detector(("cat",), None, None, fail), paths, tmp_path / "out", 0, 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_moved_folder_has_the_same_shards(paths, tmp_path):
    run_shard(DETECTOR, paths, tmp_path / "a", 0, 2)
    (tmp_path / "in").rename(tmp_path / "moved")
    moved = sorted((tmp_path / "moved").rglob("*.*"))
    run_shard(DETECTOR, moved, tmp_path / "b", 0, 2)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_worker_process_loads_once_and_tells_its_dead_letters(paths, tmp_path, monkeypatch):
    """What Apache Beam runs, without Beam."""
    loaded = []

    def load(model, max_pixels):
        loaded.append((model, max_pixels))
        return DETECTOR

    monkeypatch.setattr(shards, "load_detector", load)
    process = shards.shard_detector("model", tmp_path / "out", 2, max_pixels=900, batch_size=3)
    parts = list(enumerate(split_shards(paths, 2)))
    first = [item for part in parts for item in process(part)]
    again = [item for part in parts for item in process(part)]
    assert loaded == [("model", 900)]
    dead = ("dead", {"file": "broken.jpg", "reason": "cannot be decoded"})
    assert [item for item in first if item[0] == "dead"] == [dead]
    assert [item for item in again if item[0] == "dead"] == [dead]  # also of complete shards
    assert [text for tag, text in again if tag == "done"] == [
        f"{tmp_path / 'out' / f'detections-0000{k}-of-00002.jsonl'} exists: skipped"
        for k in range(2)
    ]
    for k in range(2):
        run_shard(DETECTOR, paths, tmp_path / "plain", k, 2)
    assert content(tmp_path / "out") == content(tmp_path / "plain")
