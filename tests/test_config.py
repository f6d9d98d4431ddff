import dataclasses
import json

import pytest

from ssd_keras.config import CONFIGS, SSD300_VOC, SSD512_COCO, SSDConfig


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
    """ssd_pascal.py and ssd_coco.py; each map's larger size is the next one's smaller."""
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
