"""Compares the named recipes with the paper, and trains each distinct network for one step."""

import dataclasses
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.config import SSD300_COCO, SSD300_VOC, SSD512_COCO, SSD512_VOC
from ssd_keras.data.records import Sample, write_records
from ssd_keras.model import ssd_vgg16
from ssd_keras.training import ablations, run
from ssd_keras.training.recipes import ABLATIONS, EXPERIMENTS, PAPER, RECORD_SETS, record_paths
from tests.processes import ssd_keras

# Data -> (iterations, boundaries) of sections 3.1, 3.3, 3.4 and 3.5, and the same with expansion.
SCHEDULES = {
    "voc07": ((60_000, (40_000, 50_000)), (120_000, (80_000, 100_000))),
    "voc0712": ((60_000, (40_000, 50_000)), (120_000, (80_000, 100_000))),
    "voc0712plus": ((80_000, (60_000,)), (160_000, (120_000,))),
    "coco": ((240_000, (160_000, 200_000)), (400_000, (280_000, 360_000))),
    "det": ((440_000, (320_000, 400_000)), (880_000, (640_000, 800_000))),
}
# The numbers of default boxes in table 3, and by hand those of table 2: 1940 cells with 2 boxes, or
# with 4 boxes.
BOXES = {
    "no_augmentation": 8732,
    "no_ratios": 3880,
    "no_ratio_3": 7760,
    "full_vgg": 8732,
    "six_maps": 8732,
    "five_maps": 8764,
    "four_maps": 8942,
    "three_maps": 9864,
    "two_maps": 9025,
    "one_map": 8664,
    "one_box": 9,
    "fully_connected": 50,
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_experiments(name):
    size, data, *rest = name.split("_")
    experiment = PAPER[name]
    recipe = experiment.recipe
    expands, from_coco = "expand" in rest, "from" in rest
    assert (recipe.iterations, recipe.boundaries) == SCHEDULES[data][expands]
    assert recipe.augmentation == ("ssd" if expands else "ssd_no_expand")
    assert (recipe.batch_size, recipe.learning_rate, recipe.momentum) == (32, 1e-3, 0.9)
    assert (recipe.weight_decay, recipe.optimizer, recipe.warmup) == (5e-4, "sgd", 0)
    assert recipe.border_boxes
    small = data in ("coco", "det") or from_coco
    configs = {"ssd300": (SSD300_VOC, SSD300_COCO), "ssd512": (SSD512_VOC, SSD512_COCO)}
    assert experiment.config == configs[size][small]
    assert experiment.config.num_default_boxes == {"ssd300": 8732, "ssd512": 24564}[size]
    sources = {
        "voc07": ("voc07trainval",),
        "voc0712": ("voc07trainval", "voc12trainval"),
        "voc0712plus": ("voc07trainval", "voc07test", "voc12trainval"),
        "coco": ("coco_trainval35k",),
        "det": ("det_train", "det_val1"),
    }
    assert experiment.records == sources[data]
    expected = f"{size}_coco{'_expand' if expands else ''}.keras" if from_coco else "imagenet"
    assert experiment.weights == expected
    if from_coco:  # the file's recipe has the same name
        assert PAPER[expected.removesuffix(".keras")].config == experiment.config
    assert recipe.metric == {"coco": "coco", "det": "voc_area"}.get(data, "voc")
    assert set(experiment.records) | {experiment.val_records} <= {*RECORD_SETS, None}


def test_the_papers_numbers():
    numbers = [experiment.paper.split()[0] for experiment in PAPER.values() if experiment.paper]
    assert numbers == [
        *("68.0", "71.6", "74.3", "76.8", "77.2", "79.8", "79.6", "81.6", "81.2", "83.2"),
        *("72.4", "74.9", "75.8", "78.5", "77.5", "80.0", "79.3", "82.2"),
        *("23.2/41.2/23.4", "26.8/46.5/27.8", "25.1/43.1/25.8", "28.8/48.5/30.3", "43.4"),
    ]
    # Table 2, and the two columns of table 3.
    assert {name: e.paper.split()[0] for name, e in ABLATIONS.items() if e.paper} == {
        **{"no_augmentation": "65.5", "no_ratios": "71.6", "no_ratio_3": "73.7"},
        **{"full_vgg": "74.2", "six_maps_inside": "63.4"},
        **{"five_maps": "74.6", "five_maps_inside": "63.1"},
        **{"four_maps": "73.8", "four_maps_inside": "68.4"},
        **{"three_maps": "70.7", "three_maps_inside": "69.2"},
        **{"two_maps": "64.2", "two_maps_inside": "64.4"},
        **{"one_map": "62.4", "one_map_inside": "64.0"},
    }


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations(name):
    experiment = ABLATIONS[name]
    base = PAPER["ssd300_voc0712"]
    inside = name.endswith("_inside")
    assert experiment.config.num_default_boxes == BOXES[name.removesuffix("_inside")]
    assert experiment.recipe.border_boxes is not inside
    mirror = name == "no_augmentation"
    assert experiment.recipe.augmentation == ("flip_only" if mirror else "ssd_no_expand")
    same = {"border_boxes": True, "augmentation": "ssd_no_expand"}
    assert dataclasses.replace(experiment.recipe, **same) == base.recipe
    assert (experiment.records, experiment.val_records) == (base.records, base.val_records)


def test_fewer_maps_keep_the_scales():
    """The configs have all scales of SSD300 on fewer feature maps, and no unused layers."""
    sizes = [m.min_size for m in SSD300_VOC.feature_maps]
    for config, sources in (
        (ablations.FIVE_MAPS, ["conv4_3", "fc7", "conv8_2", "conv9_2", "conv10_2"]),
        (ablations.FOUR_MAPS, ["conv4_3", "fc7", "conv8_2", "conv9_2"]),
        (ablations.THREE_MAPS, ["conv4_3", "fc7", "conv8_2"]),
        (ablations.ONE_MAP, ["fc7"]),
    ):
        assert [m.min_size for m in config.feature_maps] == sizes
        assert list(dict.fromkeys(m.name for m in config.feature_maps)) == sources
        extra = [layer.name for layer in config.extra_layers]
        assert extra == [name[:-2] for name in sources if name[-2:] == "_2"]
    # A cell of fc7 has 9 boxes: three squares, each with ratios 2 and 1/2.
    assert [m.boxes_per_location for m in ablations.TWO_MAPS.feature_maps] == [4, 3, 3, 3]


def test_full_vgg():
    model = ssd_vgg16(ablations.FULL_VGG, 20, width=1 / 32)
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers}
    assert shapes["conv5_3"] == (19, 19, 16)
    assert shapes["fc6"] == shapes["fc7"] == (10, 10, 128)  # 4096 / 32
    assert model.get_layer("fc6").kernel_size == (7, 7)
    maps = ("conv4_3_norm", "conv5_3", "fc7", "conv8_2", "conv9_2", "conv10_2")
    assert [shapes[name][0] for name in maps] == [38, 19, 10, 5, 3, 1]


def test_a_fully_connected_predictor_sees_the_whole_map():
    model = ssd_vgg16(ablations.CONNECTED, 20, width=1 / 32)
    head = model.get_layer("conv9_2_logits")
    assert head.kernel.shape == (5, 5, 8, 25 * 2 * 21)
    assert model.output_shape == (None, 50, 25)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Returns a function from the number of classes to a record set of one image."""

    def make(classes):
        folder = tmp_path_factory.getbasetemp() / f"records{classes}"
        if not folder.exists():
            picture = io.BytesIO()
            noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(noise).save(picture, "PNG")
            boxes = np.array([[0.2, 0.2, 0.7, 0.8]], np.float32)
            labels, difficult = np.array([classes]), np.array([False])
            one = Sample(picture.getvalue(), "one", 60, 80, boxes, labels, difficult)
            write_records([one], folder, [f"class {k}" for k in range(classes)], shards=1)
        return folder

    return make


def distinct():
    """Returns one recipe for each network, number of classes, augmentation and `border_boxes`."""
    found = {}
    for name, experiment in EXPERIMENTS.items():
        classes = {"det": 200, "coc": 80}.get(name.split("_")[1][:3], 20) if "_" in name else 20
        recipe = experiment.recipe
        key = experiment.config, classes, recipe.augmentation, recipe.border_boxes, recipe.optimizer
        found.setdefault(key, (name, classes))
    return list(found.values())


@pytest.fixture(scope="module")
def batches(records):
    """A batch of one image, by the size of the network, the augmentation and the classes."""
    made = {}

    def batch(model, recipe, classes):
        key = model.ssd_config.image_size, recipe.augmentation, classes
        if key not in made:
            strategy = tf.distribute.get_strategy()
            dataset = run._dataset(model, recipe, [records(classes)], strategy, 0, None)
            (made[key],) = dataset.take(1)
        return made[key]

    return batch


@pytest.mark.parametrize(("name", "classes"), distinct())
def test_one_step(name, classes, batches):
    experiment = EXPERIMENTS[name]
    recipe = dataclasses.replace(experiment.recipe, batch_size=1)
    labels = [f"class {k}" for k in range(classes)]
    model = ssd_vgg16(experiment.config, classes, width=1 / 64, labels=labels)
    before = model.get_layer("fc7").kernel.numpy()
    run._compile(model, recipe, 0, False)
    model.run_eagerly = True  # one step is not worth tracing
    images, truth = batches(model, recipe, classes)
    logs = model.train_on_batch(images, truth, return_dict=True)
    assert np.isfinite(logs["loss"])
    assert logs["loss"] > 0
    assert not np.array_equal(before, model.get_layer("fc7").kernel.numpy())
    assert model.output_shape == (None, experiment.config.num_default_boxes, 5 + classes)
    keras.backend.clear_session()


def test_missing_records_name_the_command(tmp_path):
    (tmp_path / "voc07trainval").mkdir()
    with pytest.raises(FileNotFoundError, match=r"prepare --source=voc .*--splits=2012:trainval"):
        record_paths(("voc07trainval", "voc12trainval"), tmp_path)


def test_the_list():
    lines = ssd_keras("recipes").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("ssd300_voc0712_expand ")]
    assert line.split(maxsplit=3)[:3] == ["ssd300_voc0712_expand", "8732", "120,000"]
    assert "table 6" in line
    assert "77.2 VOC07 test mAP" in line
    assert line.endswith("not trained here")
    assert any(line.split()[0] == name for name in EXPERIMENTS for line in lines if line)
