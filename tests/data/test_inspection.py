import html.parser
import io

import numpy as np
import pytest
from PIL import Image

from ssd_keras.data.inspection import inspect_records, inspection_text
from ssd_keras.data.inspection_page import html_page
from ssd_keras.data.records import Sample, write_records
from ssd_keras.data.sources.shapes import draw_shapes
from tests.cli import in_process, loaded_command
from tests.tiny import TINY

LABELS = ("<b>cat</b>", "dog & co")
NASTY = "<script>alert('x')</script>"


def picture(seed, image_id, boxes, labels, image_format="PNG", brighter=0, size=(64, 64)):
    """Returns an image of smooth noise; images of different seeds are not near-duplicates."""
    pixels = np.random.default_rng(seed).integers(0, 240, (8, 8, 3), dtype=np.uint8) + brighter
    image = Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    flags = np.zeros(len(boxes), bool)
    return Sample(
        buffer.getvalue(), image_id, size[1], size[0], boxes, np.array(labels, int), flags
    )


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    # The first box is the smallest default box of conv8_2: 28 pixels wide, with center (16, 16).
    box, same = [0.03125, 0.03125, 0.46875, 0.46875], [0.03125, 0.03125, 0.47, 0.46875]
    tiny = [0.5, 0.5, 0.51, 0.51]
    train = [
        picture(0, "original", [box], [1]),
        picture(1, "two boxes", [box, same, same], [1, 1, 2]),
        picture(2, NASTY, [tiny], [2]),
        picture(3, "empty", [], [], size=(96, 64)),
        picture(0, "equal file", [box], [1]),
    ]
    test = [picture(0, "as jpeg", [box], [1], "JPEG", brighter=4), picture(9, "other", [box], [2])]
    for name, samples in (("train", train), ("test", test)):
        write_records(samples, folder / name, LABELS, shards=1)
    return [str(folder / "train"), str(folder / "test")]


@pytest.fixture(scope="module")
def found(sets):
    return inspect_records(sets, TINY)


def test_counts(found):
    assert [p.image_id for p in found.pictures[:2]] == ["original", "two boxes"]
    assert found.class_counts.tolist() == [[4, 2], [1, 1]]
    assert [(label, count) for _, label, count in found.rare] == [
        (LABELS[0], 4),
        (LABELS[1], 2),
        (LABELS[0], 1),
        (LABELS[1], 1),
    ]
    assert found.centers.sum() == 8
    assert found.centers[4, 4] == 7  # the center is 0.25, in cell 4 of 16
    assert found.owners.tolist() == [0, 1, 1, 1, 2, 4, 5, 6]


def test_copies_within_and_across_sets(found):
    names = {
        (found.pictures[a].image_id, found.pictures[b].image_id): e for a, b, e in found.copies
    }
    assert names == {
        ("original", "equal file"): True,
        ("original", "as jpeg"): False,
        ("equal file", "as jpeg"): False,
    }
    assert found.copies_across == 2


def test_boxes_of_one_class_that_are_almost_identical(found):
    assert found.same_boxes == ((1, 0, 1),)


def test_objects_too_small_to_match(found):
    assert found.unmatched.tolist() == [False] * 4 + [True] + [False] * 3


def test_text(found):
    text = inspection_text(found)
    assert "5 images, 6 objects (0 difficult), 1 images without" in text
    assert "images 64 to 96 pixels wide, 64 to 64 high, 2 different sizes" in text
    assert "1 objects (12.5%) have no default box with an IoU of 0.5" in text
    assert "3 pairs of pictures look alike, 2 of them in two sets" in text


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.words = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_one_file_and_names_are_escaped(found):
    reader = Reader()
    reader.feed(html_page(found))
    assert not {"script", "link", "iframe", "b>cat"} & set(reader.tags)
    assert reader.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in reader.sources)
    words = " ".join(reader.words)
    assert f"{NASTY}, 64 x 64" in words
    assert "<b>cat</b>" in words
    assert "3 pairs, 2 of them in two sets" in words


def test_sets_without_objects(tmp_path):
    write_records([picture(0, "a", [], [])], tmp_path / "set", LABELS, shards=1)
    found = inspect_records([tmp_path / "set"], TINY)
    assert "0 objects" in inspection_text(found)
    assert "Every class" not in html_page(found)


def test_refuses_sets_of_other_classes(sets, tmp_path):
    write_records(
        draw_shapes(1, 0, image_size=64), tmp_path / "set", ["a", "b", "c", "d"], shards=1
    )
    with pytest.raises(ValueError, match="inspect them separately"):
        inspect_records([sets[0], tmp_path / "set"], TINY)


def test_the_command_writes_the_page(sets, tmp_path, capsys):
    with loaded_command("inspect") as command:
        flags = [f"--records={','.join(sets)}", f"--out={tmp_path / 'page.html'}", "--limit=2"]
        assert in_process(command, *flags) == 0
    assert "2 images, 4 objects" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
