import dataclasses
import json

import numpy as np
import pytest

from ssd_keras.config import CONFIGS, SSD300_VOC, SSD512_COCO, SSDConfig
from ssd_keras.config_files import as_config, write_config


@pytest.mark.parametrize(
    ("name", "boxes"),
    [("SSD300_VOC", 8732), ("SSD300_COCO", 8732), ("SSD512_VOC", 24564), ("SSD512_COCO", 24564)],
)
def test_number_of_default_boxes(name, boxes):
    assert CONFIGS[name].num_default_boxes == boxes


def test_box_sizes_of_the_released_models():
    sizes = [[m.min_size for m in c.feature_maps] for c in CONFIGS.values()]
    assert sizes == [
        [30, 60, 111, 162, 213, 264],
        [21, 45, 99, 153, 207, 261],
        [35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8],
        [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8],
    ]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_survives_json(config):
    assert SSDConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_refuses_sizes_that_do_not_rise():
    first, second, *rest = SSD300_VOC.feature_maps
    second = dataclasses.replace(second, min_size=30.0)
    with pytest.raises(ValueError, match=r"rise.*conv4_3 has 30 and fc7 has 30"):
        dataclasses.replace(SSD300_VOC, feature_maps=(first, second, *rest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_size": 20.0}, r"min_size \(=30\) .* max_size \(=20.0\)"),
        ({"size": 0}, r"size \(=0\)"),
        ({"step": float("nan")}, r"step \(=nan\) must be a number above 0"),
        ({"max_size": float("inf")}, r"max_size \(=inf\)"),
        ({"aspect_ratios": (1.0,)}, r"aspect_ratios \(=\(1.0,\)\)"),
        ({"aspect_ratios": (-2.0,)}, "above 0"),
    ],
)
def test_refuses_a_wrong_feature_map(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SSD300_VOC.feature_maps[0], **change)


def test_refuses_a_wrong_extra_layer():
    with pytest.raises(ValueError, match=r"extra layer conv8: filters \(=-3\)"):
        dataclasses.replace(SSD300_VOC.extra_layers[0], filters=-3)
    with pytest.raises(ValueError, match=r"extra layer conv8: padding \(=-1\)"):
        dataclasses.replace(SSD300_VOC.extra_layers[0], padding=-1)


def test_lists_are_as_good_as_tuples():
    first, *rest = SSD300_VOC.feature_maps
    maps = [dataclasses.replace(first, aspect_ratios=[2.0]), *rest]
    assert dataclasses.replace(SSD300_VOC, feature_maps=maps, mean=[123.0, 117, 104]) == SSD300_VOC


def test_tilings_are_the_scripts():
    """ssd_pascal.py and ssd_coco.py; the max_size of a map is the min_size of the next one."""
    for config, steps, last in (
        (CONFIGS["SSD300_VOC"], [8, 16, 32, 64, 100, 300], 315),
        (CONFIGS["SSD300_COCO"], [8, 16, 32, 64, 100, 300], 315),
        (CONFIGS["SSD512_VOC"], [8, 16, 32, 64, 128, 256, 512], 537.6),
        (CONFIGS["SSD512_COCO"], [8, 16, 32, 64, 128, 256, 512], 542.72),
    ):
        maps = config.feature_maps
        assert [m.step for m in maps] == steps
        assert [m.max_size for m in maps] == [*(m.min_size for m in maps[1:]), last]
        assert [m.aspect_ratios for m in maps] == [(2,), *[(2, 3)] * (len(maps) - 3), (2,), (2,)]


def test_refuses_lengths_that_disagree():
    with pytest.raises(ValueError, match=r"image_size \(=0\)"):
        dataclasses.replace(SSD300_VOC, image_size=0)
    with pytest.raises(ValueError, match=r"variances .* finite"):
        dataclasses.replace(SSD300_VOC, variances=(0.1, 0.1, 0.2, float("nan")))
    with pytest.raises(ValueError, match=r"variances .* 4 values, not 3"):
        dataclasses.replace(SSD300_VOC, variances=(0.1, 0.1, 0.2))
    with pytest.raises(ValueError, match="at least one FeatureMap"):
        dataclasses.replace(SSD300_VOC, feature_maps=())
    with pytest.raises(TypeError, match="colour"):
        SSDConfig.from_dict({**SSD512_COCO.to_dict(), "colour": 1})


def test_for_image_size_gives_the_released_configs():
    assert SSDConfig.for_image_size(300) == SSD300_VOC
    assert SSDConfig.for_image_size((300, 300)) == SSD300_VOC
    assert SSDConfig.for_image_size(512, (0.04, 0.1)) == SSD512_COCO


def test_a_wide_config_by_hand():
    """288 x 512: from 36 x 64 cells of 8 pixels to 5 x 8; box sizes are fractions of 288."""
    config = SSDConfig.for_image_size((288, 512))
    maps = config.feature_maps
    assert [m.size for m in maps] == [(36, 64), (18, 32), (9, 16), (5, 8), (3, 6), (1, 4)]
    assert [m.step for m in maps] == [8, 16, 32, 64, (96, 512 / 6), (288, 128)]
    sizes = [m.min_size for m in maps]
    np.testing.assert_allclose(sizes, [28.8, 57.6, 106.56, 155.52, 204.48, 253.44])
    cells = 4 * 36 * 64 + 6 * (18 * 32 + 9 * 16 + 5 * 8) + 4 * (18 + 4)
    assert config.num_default_boxes == cells
    assert config.input_size == (288, 512)
    assert SSDConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("size", [128, 129, 257, 416, 1024, (128, 700), (719, 1281)])
def test_any_size_is_valid(size):
    """The config passes its checks, and the centers of the cells are in the image."""
    maps = SSDConfig.for_image_size(size).feature_maps
    assert 5 <= len(maps) <= 7


def test_refuses_what_is_no_image_size():
    for size in (100, (300, 100), 300.5):
        with pytest.raises(ValueError, match="integers of at least 128"):
            SSDConfig.for_image_size(size)
    with pytest.raises(ValueError, match=r"image_size .* \(vertical, horizontal\)"):
        SSDConfig.for_image_size((300, 300, 3))
    with pytest.raises(ValueError, match="two rising fractions"):
        SSDConfig.for_image_size(300, (0.2, 0.1))


def test_refuses_steps_that_do_not_fit_the_image():
    with pytest.raises(ValueError, match=r"conv4_3: 38 cells with step \(=8\).*about 10.9474"):
        dataclasses.replace(SSD300_VOC, image_size=416)
    sizes = (52, 26, 13, 7, 5, 3)  # of a network for 416, with the steps of SSD300
    maps = zip(SSD300_VOC.feature_maps, sizes, strict=True)
    maps = [dataclasses.replace(m, size=size) for m, size in maps]
    with pytest.raises(ValueError, match=r"3 cells with step \(=300\).* from 150 to 750"):
        dataclasses.replace(SSD300_VOC, image_size=416, feature_maps=maps)


@pytest.mark.parametrize("ratios", [(2, 0.5), (2.0, 3.0, 2.0), (3, 1 / 3)])
def test_refuses_ratios_that_give_a_box_twice(ratios):
    with pytest.raises(ValueError, match=r"ratio and its reciprocal"):
        dataclasses.replace(SSD300_VOC.feature_maps[0], aspect_ratios=ratios)


def test_configs_by_name_and_in_files(tmp_path):
    wide = SSDConfig.for_image_size((288, 512))
    write_config(wide, tmp_path / "wide.json")
    assert as_config(tmp_path / "wide.json") == as_config(str(tmp_path / "wide.json")) == wide
    assert as_config("SSD512_VOC") is CONFIGS["SSD512_VOC"]
    assert as_config(wide) is wide
    with pytest.raises(ValueError, match=r"'SSD300'\) must be one of SSD300_VOC, .* or a .json"):
        as_config("SSD300")
    with pytest.raises(FileNotFoundError, match=r"no.json does not exist"):
        as_config("no.json")
    with pytest.raises(TypeError, match=r"config \(=300\)"):
        as_config(300)
    (tmp_path / "bad.json").write_text('{"image_size": 300}')
    with pytest.raises(ValueError, match=r"bad.json is not valid: 'feature_maps'"):
        as_config(tmp_path / "bad.json")
    with pytest.raises(ValueError, match=r"must end in .json"):
        write_config(wide, tmp_path / "wide.txt")
