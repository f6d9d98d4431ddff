import itertools

import numpy as np
import pytest
from PIL import Image

from ssd_keras.augmentation.ops import SSD_FAST_OPS
from ssd_keras.data import preview
from ssd_keras.data.pipeline import train_dataset
from ssd_keras.data.records import write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.drawing import class_color
from tests.cli import in_process, loaded_command
from tests.tiny import TINY


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("records") / "set")
    samples = list(draw_shapes(6, 0, image_size=64))
    for sample in samples:
        sample.difficult[::2] = True
    write_records(samples, directory, SHAPE_LABELS, shards=2)
    return directory


@pytest.mark.parametrize("use_difficult", [True, False])
def test_it_shows_what_the_network_is_fed(records, use_difficult):
    options = {"seed": 3, "use_difficult": use_difficult}
    dataset = train_dataset(records, TINY, 4, augmentation="ssd_fast", repeat=True, **options)
    images, truth = (
        np.concatenate(x) for x in zip(*dataset.take(2).as_numpy_iterator(), strict=True)
    )
    samples = preview.augmented_samples([records], TINY, SSD_FAST_OPS, first=2, **options)
    for k, sample in enumerate(itertools.islice(samples, 6), start=2):  # into the second epoch
        np.testing.assert_array_equal(sample["image"], images[k])
        np.testing.assert_array_equal(sample["boxes"], truth[k][truth[k, :, 4] > 0][:, :4])
        np.testing.assert_array_equal(sample["labels"], truth[k][truth[k, :, 4] > 0][:, 4])


def test_the_command_writes_a_sheet(records, tmp_path, capsys):
    out = str(tmp_path / "sheet.png")
    with loaded_command("preview") as module:
        flags = (f"--records={records}", f"--out={out}", "--images=3", "--columns=2")
        assert in_process(module, *flags) == 0
    with Image.open(out) as sheet:
        assert sheet.width > 2 * 300
    assert "3 samples" in capsys.readouterr().out


def test_ground_truth_is_thick_default_boxes_are_dashed_and_text_is_below():
    """The object is a default box of TINY, and its line covers the line of the default box."""
    boxes = np.array([[16, 16, 32, 32]], np.float32) / 64
    sample = {
        "image": np.full((64, 64, 3), 255, np.float32),
        "boxes": boxes,
        "labels": np.array([1]),
        "height": 64,
        "params": {
            "canvas": np.array([64, 64]),
            "sampler": np.int32(0),
            "interpolation": np.int32(0),
            "mirror": np.bool_(False),
        },
    }
    cell = np.asarray(preview.draw_sample(sample, TINY, ("a",)))
    assert cell.shape == (64 + preview.CAPTION, 64, 3)
    color = np.array(class_color(1))
    below = (cell[:64] == color).all(-1)
    # The lower edge is drawn from row 30 to row 32, over its whole width.
    assert below[30:33, 15:33].all()
    # Some matched default boxes are larger. Their lines have gaps.
    outside = below.copy()
    outside[14:34, 14:34] = False
    assert outside.any()
    rows = [row for row in range(34, 64) if outside[row, 14:34].any()]
    assert rows
    assert not any(outside[row, 14:34].all() for row in rows)
    assert (cell[64:] < 128).any()  # the text
    assert (cell[:64].sum(-1) > 0).all()  # no text on the image
