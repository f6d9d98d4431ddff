"""The tiling and the classes of a weights file may be given, detected or assumed."""

import json
import zipfile
from operator import itemgetter

import keras
import numpy as np
import pytest

from ssd_keras.class_names import COCO_CATEGORY_IDS, COCO_CLASSES, COCO_ID_NAMES, VOC_CLASSES
from ssd_keras.config import CONFIGS, SSD300_COCO, SSD300_VOC
from ssd_keras.data.records import write_records
from ssd_keras.data.sources.shapes import draw_shapes
from ssd_keras.evaluation.coco import coco_results
from ssd_keras.export.checks import class_labels
from ssd_keras.inference.detector import keras_detector
from ssd_keras.inference.record_sets import detect_records
from ssd_keras.vgg16 import takes_rgb
from ssd_keras.weights.formats import read_tensors
from ssd_keras.weights.load import load_weights
from ssd_keras.weights.tiling import own_contents
from tests.peer_files import narrow, random_layers, write_file
from tests.reference import projects


@pytest.fixture(scope="module")
def voc_model():
    return narrow(SSD300_VOC, 20, VOC_CLASSES)


def test_own_weights_without_their_model_need_a_config(tmp_path, voc_model):
    path = tmp_path / "only.weights.h5"
    narrow(SSD300_VOC, 20).save_weights(path)
    with pytest.raises(
        ValueError, match=r"is not a \.keras file of ssd_vgg16 .* give weights_config"
    ):
        load_weights(voc_model, path)
    assert load_weights(voc_model, path, weights_config=SSD300_VOC).fresh == ()


def test_custom_weights_of_unknown_tiling_need_a_config(tmp_path):
    model = narrow(SSD300_COCO, 2, ("b", "a"))
    groups, scale = random_layers(model, 300, 3)
    path = write_file(tmp_path, "lufficc", 300, "COCO", groups, scale)
    with pytest.raises(ValueError, match="lufficc weights with 3 outputs may have any tiling"):
        load_weights(model, path)
    load_weights(model, path, weights_config=SSD300_COCO, weights_labels=("a", "b"))
    bias = model.get_layer("conv11_2_logits").bias.numpy().reshape(4, 3)
    np.testing.assert_array_equal(bias[:, [0, 2, 1]], groups[3][5][1].reshape(4, 3))


def test_a_caffemodel_contains_its_tiling(tmp_path):
    model = narrow(SSD300_COCO, 20)
    groups, scale = random_layers(model, 300, 21)
    path = write_file(tmp_path, "caffe", 300, "COCO", groups, scale)  # VOC with COCO's tiling
    report = load_weights(model, path)
    assert report.fresh == report.skipped == ()
    assert "tiling: SSD300_COCO, as in its PriorBox layers" in report.notes
    with pytest.raises(
        ValueError, match=r"not those of weights_config: conv4_3_norm_mbox_prior.*in total: 11\)"
    ):
        load_weights(model, path, weights_config=SSD300_VOC)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (
            {"clip": True},
            r"conv4_3_norm_mbox_priorbox has clip \[1.0\], not \[False\] as in SSD300_VOC",
        ),
        ({"variance": [0.5]}, r"has variance \[0.5\], not \[0.1, 0.1, 0.2, 0.2\]"),
        ({"variance": ()}, r"has variance \[0.1, 0.1, 0.1, 0.1\], not \[0.1, 0.1, 0.2, 0.2\]"),
        ({"step": 50}, r"has step \[50.0\], not \[8\]"),
        ({"offset": 0}, r"has offset \[0.0\], not \[0.5\]"),
        ({"ratios": [2, 4]}, r"has aspect_ratio \[2.0, 4.0\], not \[2.0\]"),
        ({"img_size": 600}, r"has img_size \[600.0\], not \[300.0\]"),
        ({"high": None}, r"has max_size \[\], not \[60\]"),
    ],
)
def test_the_whole_tiling_in_a_caffemodel_is_compared(tmp_path, voc_model, prior, message):
    groups, scale = random_layers(voc_model, 300, 21)
    path = write_file(tmp_path, "caffe", 300, "VOC", groups, scale, **prior)
    with pytest.raises(ValueError, match=f"are not those of SSD300_VOC or .*{message}"):
        load_weights(voc_model, path)


def test_an_assumed_tiling_is_reported(tmp_path, voc_model):
    groups, scale = random_layers(voc_model, 300, 21)
    guess = "tiling: SSD300_VOC, assumed from 21 outputs; models fine-tuned from COCO need"
    path = write_file(tmp_path, "lufficc", 300, "VOC", groups, scale)
    report = load_weights(voc_model, path)
    assert any(note.startswith(guess) for note in report.notes)
    assert report.warnings == ()
    path = write_file(tmp_path, "pierluigi", 300, "VOC", groups, scale)
    assert load_weights(voc_model, path).warnings[0].startswith(guess)
    given = load_weights(voc_model, path, weights_config=SSD300_VOC)
    assert given.warnings == ()


def test_torchvisions_network_for_512_pixels_is_refused(tmp_path):
    model = narrow(CONFIGS["SSD512_COCO"], 90)
    groups, scale = random_layers(model, 512, 91)
    path = write_file(tmp_path, "torchvision", 512, "COCO", groups, scale)
    with pytest.raises(
        ValueError, match=r"\(highres\) has last feature maps of 8, 6, 4 and 1 cells"
    ):
        load_weights(model, path)


@pytest.mark.parametrize("source", ["mmdetection", "mmdetection_old"])
def test_mmdetection_1_has_the_background_elsewhere(tmp_path, voc_model, source):
    groups, scale = random_layers(voc_model, 300, 21)
    path = write_file(tmp_path, source, 300, "VOC", groups, scale)
    assert "mmdetection 2.0 or later assumed; 1.x has" in str(load_weights(voc_model, path))
    tensors = read_tensors(path)
    np.savez(tmp_path / "v1.npz", **tensors, **{"meta.mmdet_version": np.array([1, 2])})
    with pytest.raises(ValueError, match=r"written by mmdetection 1.2\. .* 2.0 or later"):
        load_weights(voc_model, tmp_path / "v1.npz")
    np.savez(tmp_path / "v2.npz", **tensors, **{"meta.mmdet_version": np.array([2, 13])})
    report = load_weights(voc_model, tmp_path / "v2.npz")
    assert report.skipped == ()
    assert "assumed; 1.x" not in str(report)


def test_the_first_kernel_shows_the_color_order():
    kernel = np.zeros((64, 3, 3, 3), np.float32)
    for i, blue_above_red in enumerate(f"{0x767D2BC24B6973C2:064b}"):
        kernel[i, 0, 1, 1] = 0.1 if blue_above_red == "1" else -0.1
    noise = np.random.default_rng(0).normal(0, 0.001, kernel.shape).astype("f4")
    assert takes_rgb(kernel + noise) is False
    assert takes_rgb(kernel[:, ::-1] + noise) is True
    kernel[:5] *= -1  # 59 of 64 signs agree
    assert takes_rgb(kernel) is None
    assert takes_rgb(kernel[:8]) is None


@pytest.mark.parametrize("rgb", [True, False])
def test_a_bare_vgg16_is_reordered_by_its_first_kernel(tmp_path, voc_model, monkeypatch, rgb):
    (vgg, *_), _ = random_layers(voc_model, 300, 21)
    tensors = {
        f"{place}.{v}": array
        for place, pair in zip(projects.sequential_places(), vgg, strict=True)
        for v, array in zip(("weight", "bias"), pair, strict=True)
    }
    np.savez(tmp_path / "v.npz", **tensors)
    monkeypatch.setattr("ssd_keras.vgg16.takes_rgb", lambda kernel: rgb)
    report = load_weights(voc_model, tmp_path / "v.npz")
    first = vgg[0][0][:, ::-1] if rgb else vgg[0][0]
    np.testing.assert_array_equal(
        voc_model.get_layer("conv1_1").kernel, first.transpose(2, 3, 1, 0)
    )
    assert f"images: {'RGB' if rgb else 'BGR'}, detected from conv1_1" in report.notes
    assert ("conv1_1: kernel reordered from RGB to BGR" in report.notes) == rgb


def test_an_amdegroot_file_of_caffe_weights_is_read_as_caffe(tmp_path, voc_model):
    groups, scale = random_layers(voc_model, 300, 21)
    load_weights(voc_model, write_file(tmp_path, "caffe", 300, "VOC", groups, scale))
    expected = voc_model.get_weights()
    path = write_file(tmp_path, "amdegroot", 300, "VOC", groups, scale)
    assert "give weights_project amdegroot_caffe" in str(load_weights(voc_model, path))
    assert not np.array_equal(voc_model.get_layer("conv1_1").kernel, expected[0])
    load_weights(voc_model, path, weights_project="amdegroot_caffe")
    for array, theirs in zip(voc_model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(array, theirs)


def test_features_of_torchvisions_vgg16(tmp_path, voc_model):
    (vgg, *_), _ = random_layers(voc_model, 300, 21)
    tensors = {
        f"features.{place}.{v}": array
        for place, pair in zip(projects.sequential_places()[:13], vgg, strict=False)
        for v, array in zip(("weight", "bias"), pair, strict=True)
    }
    nan = {"classifier.0.weight": np.full(3, np.nan, "f4")}
    np.savez(tmp_path / "v.npz", **tensors, **nan)
    report = load_weights(voc_model, tmp_path / "v.npz")
    assert report.project == "torchvision_vgg16"
    kernel = vgg[0][0].transpose(2, 3, 1, 0)[:, :, ::-1]
    np.testing.assert_array_equal(voc_model.get_layer("conv1_1").kernel, kernel)
    np.savez(tmp_path / "v.npz", **tensors, **{"classifier.0.weight": np.zeros(3, "f4")})
    with pytest.raises(ValueError, match="scaled to a standard deviation of 1"):
        load_weights(voc_model, tmp_path / "v.npz")


@pytest.mark.parametrize(
    ("outputs", "labels", "options", "warning"),
    [
        (
            4,
            ("cat", "dog", "bird"),
            {},
            "does not name its 3 classes; they are assumed to be the mod",
        ),
        (4, ("cat", "dog", "bird"), {"weights_labels": ("cat", "dog", "bird")}, None),
        (4, None, {}, None),
        (
            21,
            VOC_CLASSES,
            {},
            "its 20 classes; they are assumed to be aeroplane ... tvmonitor: give",
        ),
        (91, ("cat",), {}, None),
    ],
)
def test_assumed_classes_are_a_warning(tmp_path, outputs, labels, options, warning):
    model = narrow(SSD300_COCO, len(labels) if labels else outputs - 1, labels)
    groups, scale = random_layers(model, 300, outputs)
    path = write_file(tmp_path, "torchvision", 300, "COCO", groups, scale)
    warnings = load_weights(model, path, **options).warnings
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]


def test_a_model_that_is_not_an_ssd_is_refused(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="predictions")(inputs))
    with pytest.raises(ValueError, match="must be made by ssd_vgg16"):
        load_weights(model, tmp_path / "none.npz")


def own_file(path, config):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[" * 100_000, "RecursionError|recursion"),
        (" " * (1 << 25), "config.json has 33554432 bytes, above 16777216"),
        ("{}", "is not a .keras file of ssd_vgg16"),
        (
            json.dumps(
                {"config": {"layers": [{"name": "predictions", "config": {"labels": [1, 2]}}]}}
            ),
            r"its labels \(=\[1, 2\]\) must be strings",
        ),
    ],
)
def test_damaged_configs_of_own_models_are_refused(tmp_path, config, message):
    own_file(tmp_path / "m.keras", config)
    with pytest.raises(ValueError, match=message):
        own_contents(tmp_path / "m.keras")


def test_80_and_91_outputs_are_matched_by_coco_ids(tmp_path):
    model = narrow(SSD300_COCO, 80, COCO_CLASSES)
    groups, scale = random_layers(model, 300, 91)
    path = write_file(tmp_path, "torchvision", 300, "COCO", groups, scale)
    load_weights(model, path)
    bias = model.get_layer("conv11_2_logits").bias.numpy().reshape(4, 81)
    theirs = groups[3][5][1].reshape(4, 91)
    assert COCO_ID_NAMES[89] == "toothbrush"
    np.testing.assert_array_equal(bias[:, [0, 1, 12, 80]], theirs[:, [0, 1, 13, 90]])


def test_80_and_91_outputs_give_the_same_results(tmp_path):
    """Both models load one file of 91 outputs; their detections on COCO records are compared."""
    groups, scale = random_layers(narrow(SSD300_COCO, 1), 300, 91)
    unused = [i for i, name in enumerate(COCO_ID_NAMES, start=1) if name not in COCO_CLASSES]
    for kernel, bias in groups[3]:  # after training, unused ids have no scores
        kernel *= 0.05
        kernel.reshape(-1, 91, *kernel.shape[1:])[:, unused] = 0
        bias.reshape(-1, 91)[:, unused] = -50
    path = write_file(tmp_path, "torchvision", 300, "COCO", groups, scale)
    write_records(
        draw_shapes(1, 0, image_size=64),
        tmp_path / "records",
        COCO_CLASSES,
        shards=1,
        category_ids=COCO_CATEGORY_IDS,
    )
    results = []
    for labels in (COCO_CLASSES, COCO_ID_NAMES):
        model = narrow(SSD300_COCO, len(labels), labels)
        load_weights(model, path)
        assert class_labels(model, None) == labels
        detections, samples, _ = detect_records(keras_detector(model), tmp_path / "records")
        results.append(coco_results(detections, samples, COCO_CATEGORY_IDS))
    assert len(results[0]) == 200
    assert len({item["category_id"] for item in results[0]}) > 3
    key = itemgetter("image_id", "category_id")
    for ours, theirs in zip(*results, strict=True):
        assert key(ours) == key(theirs)
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=0.01)
