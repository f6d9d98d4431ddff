"""The detect command, and `detect_files` behind it."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.config import SSD300_VOC
from ssd_keras.drawing import class_color
from ssd_keras.inference.detector import Detector
from ssd_keras.inference.files import JSON_NAME, detect_files
from ssd_keras.inference.inputs import find_images
from ssd_keras.inference.tiles import Tiles
from ssd_keras.model import ssd_vgg16
from tests.cli import in_process, loaded_command
from tests.processes import ssd_keras

BOXES = np.float32([[0.25, 0.5, 0.75, 1.0], [0, 0, 0.5, 0.5], [0, 0, 0, 0]])
SCORES = np.float32([0.9, 0.3, 0])
CLASSES = np.int32([2, 1, 0])


def run(images):
    """Returns the same two detections for every image; the third row is padding."""
    b = len(images)
    return {
        "detection_boxes": tf.tile(BOXES[None], [b, 1, 1]),
        "detection_scores": tf.tile(SCORES[None], [b, 1]),
        "detection_classes": tf.tile(CLASSES[None], [b, 1]),
        "num_detections": tf.fill([b], 2),
    }


DETECTOR = Detector(("кот", "dog"), run)


def picture(path, size=(80, 40), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 128 if mode == "L" else None).save(path)
    return path


def lines(out):
    return [json.loads(line) for line in (out / JSON_NAME).read_text("utf-8").splitlines()]


def test_images_of_too_many_pixels_are_left_out(tmp_path, capsys):
    paths = [picture(tmp_path / "in" / f"{k}.png", (80, k)) for k in (40, 41)]
    detector = Detector(DETECTOR.labels, run, max_pixels=3200)
    summary = detect_files(detector, paths, tmp_path / "out")
    assert summary.unreadable == (paths[1],)
    assert capsys.readouterr().err == (
        f"warning: {paths[1]} skipped: image has more than 3200 pixels\n"
    )


def test_json_and_picture(tmp_path):
    path = picture(tmp_path / "in" / "a.png", mode="L")
    summary = detect_files(DETECTOR, [path], tmp_path / "out")

    assert (summary.num_images, summary.num_detections, summary.unreadable) == (1, 2, ())
    assert lines(tmp_path / "out") == [
        {
            "file": str(path),
            "picture": "a.png",
            "width": 80,
            "height": 40,
            "detections": [
                {
                    "label": "dog",
                    "class_id": 2,
                    "score": pytest.approx(0.9, abs=1e-6),
                    "box": [0.25, 0.5, 0.75, 1.0],
                    "box_pixels": [10, 40, 30, 80],
                },
                {
                    "label": "кот",
                    "class_id": 1,
                    "score": pytest.approx(0.3, abs=1e-6),
                    "box": [0, 0, 0.5, 0.5],
                    "box_pixels": [0, 0, 20, 40],
                },
            ],
        }
    ]
    with Image.open(tmp_path / "out" / "a.png") as drawn:
        assert drawn.size == (80, 40)
        colors = {color for _, color in drawn.getcolors(4000)}
    assert class_color(2) in colors
    assert class_color(1) not in colors  # its score is below 0.5
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", JSON_NAME]


def test_thresholds(tmp_path):
    path = picture(tmp_path / "in" / "a.png")
    summary = detect_files(
        DETECTOR, [path], tmp_path / "out", score_threshold=0.2, json_threshold=0.5
    )
    assert summary.num_detections == 1
    with Image.open(tmp_path / "out" / "a.png") as drawn:
        assert class_color(1) in {color for _, color in drawn.getcolors(4000)}
    with pytest.raises(ValueError, match=r"json_threshold \(=1.5\) must be in \[0, 1\]"):
        detect_files(DETECTOR, [path], tmp_path / "other", json_threshold=1.5)


def test_unusual_images_are_processed_and_broken_ones_skipped(tmp_path, capsys):
    folder = tmp_path / "in"
    good = [
        picture(folder / "gray.jpg", mode="L"),
        picture(folder / "alpha.png", mode="RGBA"),
        picture(folder / "print.jpg", mode="CMYK"),
        picture(folder / "frames.gif", mode="P"),
        picture(folder / "web.webp"),
        picture(folder / "one.png", (1, 1)),
        picture(folder / "wide.png", (8000, 2)),
    ]
    turned = folder / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(turned, exif=exif)
    whole = picture(folder / "whole.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.png").touch()

    summary = detect_files(DETECTOR, find_images([str(folder)]), tmp_path / "out", batch_size=3)

    assert summary.num_images == len(good) + 2
    assert [path.name for path in summary.unreadable] == ["broken.jpg", "empty.png"]
    warnings = capsys.readouterr().err
    assert f"warning: {folder / 'broken.jpg'} skipped: cannot be decoded" in warnings
    written = {line["file"]: line for line in lines(tmp_path / "out")}
    for path in (*good, turned):
        line = written[str(path)]
        with Image.open(path) as source, Image.open(tmp_path / "out" / line["picture"]) as drawn:
            assert source.size == drawn.size == (line["width"], line["height"])


def test_a_batch_of_broken_files_only(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    summary = detect_files(DETECTOR, [tmp_path / "text.png"], tmp_path / "out")
    assert (summary.num_images, len(summary.unreadable)) == (0, 1)
    assert lines(tmp_path / "out") == []


def test_a_missing_file_is_skipped(tmp_path, capsys):
    paths = [tmp_path / "gone.png", picture(tmp_path / "a.png")]
    assert detect_files(DETECTOR, paths, tmp_path / "out").unreadable == (paths[0],)
    assert "gone.png skipped: [Errno 2] No such file" in capsys.readouterr().err


def test_images_of_the_same_name_are_all_kept(tmp_path):
    paths = [
        picture(tmp_path / folder / name)
        for folder, name in (("x", "a.png"), ("y", "a.png"), ("y", "a-2.png"), ("z", "A.webp"))
    ]
    detect_files(DETECTOR, paths, tmp_path / "out")
    names = [line["picture"] for line in lines(tmp_path / "out")]
    assert names == ["a.png", "a-2.png", "a-2-2.png", "A-3.png"]
    assert all((tmp_path / "out" / name).is_file() for name in names)


def test_folder_in_use_is_refused(tmp_path):
    path = picture(tmp_path / "in" / "a.png")
    other = picture(tmp_path / "out" / "mine.png")
    with pytest.raises(ValueError, match=r"out\) is not empty: name another"):
        detect_files(DETECTOR, [path], tmp_path / "out")
    detect_files(DETECTOR, [path], tmp_path / "out", overwrite=True)
    assert other.is_file()
    with pytest.raises(ValueError, match=r"a.png\) is a file"):
        detect_files(DETECTOR, [path], path)


def test_inputs_are_never_overwritten(tmp_path):
    path = picture(tmp_path / "a.png")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="contains one of the input images"):
        detect_files(DETECTOR, [path], tmp_path, overwrite=True)
    assert path.read_bytes() == before


def test_find_images(tmp_path):
    a, b = picture(tmp_path / "a.JPG"), picture(tmp_path / "deep" / "er" / "b.png")
    text = tmp_path / "notes.txt"
    text.touch()
    assert find_images([str(tmp_path)]) == [a, b]
    assert find_images([str(tmp_path / "**" / "*.png"), str(tmp_path)]) == [b, a]
    assert find_images([str(text)]) == [text]  # any suffix is accepted in a file name
    strange = picture(tmp_path / "[1]*.png")
    assert find_images([str(strange)]) == [strange]  # a file, not a pattern


def test_inputs_without_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="inputs is empty"):
        find_images([])
    for name in ("nothing/*.jpg", "missing.jpg", ""):
        with pytest.raises(ValueError, match="matches no image: it must be a file"):
            find_images([str(tmp_path / name)])


def test_the_command(tmp_path):
    ssd_vgg16(SSD300_VOC, 2, width=1 / 32, labels=("cat", "dog")).save(tmp_path / "m.keras")
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "broken.jpg").write_text("no image")
    model, out = f"--model={tmp_path / 'm.keras'}", f"--out={tmp_path / 'out'}"
    done = ssd_keras("detect", model, out, tmp_path / "in")
    assert done.returncode == 2
    assert "broken.jpg skipped: cannot be decoded" in done.stderr
    assert f"1 images, {len(lines(tmp_path / 'out')[0]['detections'])} detections" in done.stdout
    assert (tmp_path / "out" / "a.png").is_file()


def test_the_command_refuses_other_files_before_it_makes_a_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    out = f"--out={tmp_path / 'out'}"
    done = ssd_keras("detect", "--model=missing.keras", out, tmp_path / "notes.txt")
    assert done.returncode == 1
    assert "notes.txt is neither an image nor a video" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_reads_an_image_from_stdin_with_tiles(tmp_path):
    ssd_vgg16(SSD300_VOC, 2, width=1 / 32, labels=("cat", "dog")).save(tmp_path / "m.keras")
    path = picture(tmp_path / "a.png")
    words = (f"--model={tmp_path / 'm.keras'}", f"--out={tmp_path / 'out'}", "--tiles=1x2")
    done = ssd_keras("detect", *words, "-", stdin=path.read_bytes())
    assert (done.returncode, done.stderr) == (0, "")
    assert "\r" not in done.stdout  # no progress bar in pipes
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"stdin.png", JSON_NAME}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shard=0/2", "--formats=coco"], "--formats has no effect with --shard"),
        (["--shard=0/2", "--score_threshold=0.5"], "--score_threshold has no effect with --shard"),
        (["--shard=0/2", "--overwrite"], "--overwrite has no effect with --shard"),
        (["--shards=4"], "--shards has no effect without --runner"),
        (["--tile_overlap=0.4"], "--tile_overlap has no effect without --tiles"),
        (["--every=2"], "--every has no effect without a video"),
        (["--max_frames=2"], "--max_frames has no effect without a video"),
    ],
)
def test_the_command_refuses_flags_without_effect(tmp_path, capsys, flags, message):
    words = (f"--out={tmp_path / 'out'}", str(picture(tmp_path / "a.png")))
    with loaded_command("detect") as module:
        assert in_process(module, "--model=m.keras", *flags, *words) == 1
    assert message in capsys.readouterr().err


def test_the_command_passes_the_overlap_of_the_tiles(tmp_path, monkeypatch, capsys):
    given = []

    def stop(detector, tiles, batch_size):
        given.append(tiles)
        raise ValueError("enough")

    words = (f"--out={tmp_path / 'out'}", "--tiles=2x3", str(picture(tmp_path / "a.png")))
    with loaded_command("detect") as module:
        monkeypatch.setattr(module, "load_detector", lambda *_, **__: None)
        monkeypatch.setattr(module, "tiled_detector", stop)
        assert in_process(module, "--model=m.keras", "--tile_overlap=0.4", *words) == 1
        assert in_process(module, "--model=m.keras", "--tile_overlap=0.95", *words) == 1
    assert given == [Tiles(rows=2, columns=3, overlap=0.4)]
    assert "overlap (=0.95) must be in [0, 0.9]" in capsys.readouterr().err
