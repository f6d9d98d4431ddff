"""Other source layers and input sizes, proposed for objects of known sizes."""

import dataclasses

import numpy as np
import pytest

from ssd_keras.config import SSD300_VOC, SSDConfig
from ssd_keras.config_files import as_config
from ssd_keras.data.fit_boxes import fitted_config, least_boxes
from ssd_keras.data.records import write_records
from ssd_keras.data.source_layers import proposals, with_image_size, with_sources
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.model import ssd_vgg16
from tests.cli import in_process, loaded_command
from tests.tiny import TINY

SOURCES = [m.name for m in SSD300_VOC.feature_maps]


def squares(low, high, count=80):
    """Squares of random sides in pixels of SSD300, at random places."""
    rng = np.random.default_rng(0)
    size = np.tile(rng.uniform(low, high, (count, 1)), 2) / 300
    corner = rng.uniform(0, 1 - size)
    return [np.concatenate([corner, corner + size], axis=1).astype(np.float32)]


def proposed(boxes, max_boxes, config=SSD300_VOC):
    fitted = fitted_config(boxes, config, max_boxes=max(max_boxes, least_boxes(config)))
    return proposals(boxes, boxes, config, fitted, max_boxes=max_boxes)


def test_sources_by_hand():
    early = with_sources(SSD300_VOC, ["conv3_3", *SOURCES])
    first = early.feature_maps[0]
    assert (first.size, first.step, first.min_size, first.max_size) == (75, 4, 15, 30)
    assert early.num_default_boxes == 8732 + 75 * 75 * 4
    assert early.feature_maps[1:] == SSD300_VOC.feature_maps
    fewer = with_sources(SSD300_VOC, SOURCES[:4])
    assert fewer.num_default_boxes == 8732 - 9 * 4 - 4
    assert [e.name for e in fewer.extra_layers] == ["conv8", "conv9"]
    assert with_sources(SSD300_VOC, ["fc7"]).extra_layers == ()
    wide = with_sources(SSDConfig.for_image_size((128, 256)), ["conv3_3", "conv4_3"])
    assert wide.feature_maps[0].grid == (32, 64)
    for wrong in (["conv7"], []):
        with pytest.raises(ValueError, match=r"sources \(=.*must be of conv3_3 and the maps"):
            with_sources(SSD300_VOC, wrong)


def test_another_input_keeps_the_coding():
    config = dataclasses.replace(SSD300_VOC, mean=(1.0, 2.0, 3.0), clip=True)
    changed = with_image_size(config, (288, 512))
    assert changed == SSDConfig.for_image_size((288, 512), mean=(1.0, 2.0, 3.0), clip=True)


def test_small_objects_ask_for_smaller_steps():
    """Squares of 7 to 11 pixels match only if they lie near the centers of the 8-pixel cells."""
    early, larger = proposed(squares(7, 11), 40_000)
    assert early.flag == f"--sources=conv3_3,{','.join(SOURCES)}"
    assert larger.flag == "--image_size=448x448"
    assert "smaller than 22 pixels" in early.reason
    assert early.min_boxes == 75 * 75 * 2 + 2 * (38**2 + 19**2 + 10**2 + 5**2 + 3**2 + 1)
    assert [m.name for m in early.config.feature_maps] == ["conv3_3", *SOURCES]
    assert larger.config.image_size == 448
    assert early.config.num_default_boxes <= 40_000


def test_a_proposal_beyond_the_budget_has_no_config():
    early = proposed(squares(7, 11), 8732)[0]
    assert early.config is None
    assert early.min_boxes == 15130


def test_without_large_objects_the_last_maps_are_not_needed():
    """Squares of 30 to 60 pixels: the boxes of conv8_2 have at least 111."""
    (fewer,) = proposed(squares(30, 60), 8732)
    assert fewer.flag == "--sources=conv4_3,fc7"
    assert fewer.config.extra_layers == ()
    assert "conv8_2, conv9_2, conv10_2, conv11_2" in fewer.reason


def test_objects_of_all_sizes_ask_for_nothing():
    assert proposed(squares(25, 290), 8732) == []


def test_a_network_with_an_early_source_has_its_features_normalized():
    config = with_sources(TINY, ["conv3_3", "conv4_3", "fc7"])
    model = ssd_vgg16(config, 2, width=1 / 16)
    assert model.output_shape == (None, config.num_default_boxes, 7)
    scale = model.get_layer("conv3_3_norm").scale.numpy()
    np.testing.assert_array_equal(scale, np.full(16, 20))
    assert model.get_layer("conv3_3_offsets").input is model.get_layer("conv3_3_norm").output


def test_the_flags_write_the_proposed_config(tmp_path, capsys):
    records = tmp_path / "records"
    write_records(draw_shapes(3, 0, image_size=64), records, SHAPE_LABELS, shards=1)
    with loaded_command("fit-boxes") as command:
        flags = [f"--records={records}", f"--out={tmp_path / 'mine.json'}", "--augmentation=none"]
        flags += ["--image_size=128x160", "--sources=conv3_3,conv4_3,fc7"]
        assert in_process(command, *flags) == 0
        fitted = as_config(tmp_path / "mine.json")
        assert fitted.image_size == (128, 160)
        assert [m.name for m in fitted.feature_maps] == ["conv3_3", "conv4_3", "fc7"]
        assert in_process(command, f"--records={records}", "--image_size=128:160") != 0
    assert "--image_size (=128:160) must be HEIGHTxWIDTH" in capsys.readouterr().err
