import itertools

import numpy as np
import pytest
from PIL import Image

from ssd_keras.augmentation.ops import SSD_FAST_OPS
from ssd_keras.data import preview
from ssd_keras.data.pipeline import train_dataset
from ssd_keras.data.records import write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
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
