import dataclasses

import h5py
import keras
import numpy as np
import pytest

from ssd_keras.class_names import VOC_CLASSES
from ssd_keras.config import CONFIGS, SSD300_COCO, SSD300_VOC
from ssd_keras.detections import DetectionDecoder
from ssd_keras.model import ssd_vgg16
from ssd_keras.vgg16 import CONVOLUTIONS
from ssd_keras.weights.formats import read_tensors
from ssd_keras.weights.load import load_weights
from tests.peer_files import WIDTH, narrow, random_layers, write_file
from tests.reference import projects


@pytest.fixture(scope="module")
def voc_model():
    return narrow(SSD300_VOC, 20, VOC_CLASSES)


# project, input size, tiling, outputs per box, old file format
PEERS = [
    ("torchvision", 300, "COCO", 91, False),
    ("amdegroot", 300, "VOC", 21, False),
    ("lufficc", 512, "VOC", 21, False),
    ("mmdetection", 300, "COCO", 81, False),
    ("mmdetection", 512, "VOC", 21, False),
    ("mmdetection_old", 300, "VOC", 21, False),
    ("mmdetection_old", 512, "COCO", 81, False),
    ("caffe", 300, "VOC", 21, False),
    ("caffe", 512, "COCO", 81, True),
    ("pierluigi", 300, "VOC", 21, False),
    ("pierluigi", 512, "VOC", 21, False),
    ("chainercv", 300, "VOC", 21, False),
    ("chainercv", 512, "VOC", 21, False),
    ("oarriaga", 300, "VOC", 21, False),
    ("balancap", 300, "COCO", 21, False),
    ("balancap", 512, "COCO", 21, False),
]


BGR = ("caffe", "pierluigi", "oarriaga")


@pytest.mark.parametrize(("source", "size", "tiling", "outputs", "old"), PEERS)
def test_the_model_predicts_what_the_peer_predicts(tmp_path, source, size, tiling, outputs, old):
    config = CONFIGS[f"SSD{size}_{tiling}"]
    mean = (123.675, 116.28, 103.53) if "mmdetection" in source else (123.0, 117.0, 104.0)
    model = narrow(dataclasses.replace(config, mean=mean), outputs - 1)
    groups, scale = random_layers(model, size, outputs)
    path = write_file(tmp_path, source, size, tiling, groups, scale, old)
    report = load_weights(model, path)
    assert report.project == source
    assert report.fresh == report.skipped == ()
    assert ("conv1_1: kernel reordered" in str(report)) == (source not in BGR)
    assert ("background moved" in str(report)) == ("mmdetection" in source)

    image = np.random.default_rng(1).integers(0, 256, (1, size, size, 3)).astype(np.float32)
    centered = image - mean  # RGB
    if source in BGR:
        centered = centered[..., ::-1]
    loc, conf = projects.forward(groups, scale, centered.astype(np.float32), size, outputs)
    if source == "chainercv":  # its offsets are (y, x, h, w)
        loc = loc[..., [1, 0, 3, 2]]
    defaults = projects.default_boxes(
        size,
        tiling,
        integer=source.startswith(("caffe", "mmdetection")),
        clamp="sizes" if source in ("torchvision", "amdegroot", "lufficc") else None,
    )
    expected = projects.softmax(conf)
    expected = expected[..., :-1] if "mmdetection" in source else expected[..., 1:]
    boxes, scores = DetectionDecoder(config).candidates(model(image))
    np.testing.assert_allclose(boxes, projects.decode(loc, defaults), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_of_a_training_run_warns_of_the_tiling(tmp_path, voc_model):
    """balancap's files of 21 outputs have one of two tilings; optimizer slots are skipped."""
    groups, scale = random_layers(voc_model, 300, 21)
    path = write_file(tmp_path, "balancap", 300, "VOC", groups, scale)
    arrays = read_tensors(path)
    name = "ssd_300_vgg/conv1/conv1_1/weights"
    more = {"global_step": np.int64(9), f"{name}/Momentum": arrays[name]}
    projects.tf1_checkpoint(path, arrays | more)
    with pytest.raises(ValueError, match="its tiling is that of SSD300_COCO, but the model"):
        load_weights(voc_model, path)
    report = load_weights(voc_model, path, weights_config=SSD300_VOC)
    assert report.skipped == ("global_step", f"{name}/Momentum")
    assert str(report).count("sha256: ") == 2  # of the data and of the index
    assert "net.ckpt.index" in str(report)
    coco = narrow(SSD300_COCO, 20, VOC_CLASSES)
    assert any(
        "assumed from 21 outputs" in warning for warning in load_weights(coco, path).warnings
    )


def test_the_first_version_of_the_network_is_refused(tmp_path, voc_model):
    path = tmp_path / "weights_SSD300.hdf5"
    with h5py.File(path, "w") as f:
        f["conv1_1/conv1_1_W:0"] = np.zeros((3, 3, 3, 8), "f4")
        f["pool6_mbox_loc_flat/pool6_mbox_loc_flat_W:0"] = np.zeros((8, 24), "f4")
    with pytest.raises(ValueError, match=r"rykov8/ssd_keras wrote it.*7308 default boxes"):
        load_weights(voc_model, path)


@pytest.mark.parametrize("source", ["amdegroot", "lufficc"])
def test_114_default_boxes_that_some_projects_move_are_reported(tmp_path, voc_model, source):
    """The last row and column of conv8_2: (9 + 0.5) * 32 = 304 of 300 pixels; 19 * 6 boxes."""
    defaults = [projects.default_boxes(300, "VOC", False, clamp) for clamp in ("sizes", "all")]
    assert (defaults[0] != defaults[1]).any(axis=1).sum() == 114
    np.testing.assert_allclose(np.abs(defaults[0] - defaults[1]).max(), 4 / 300)
    groups, scale = random_layers(voc_model, 300, 21)
    path = write_file(tmp_path, source, 300, "VOC", groups, scale)
    difference = f"DIFFERENCE: 114 default boxes have centers outside the image; {source} moves"
    assert difference in str(load_weights(voc_model, path))


def test_another_mean_is_folded_into_the_first_layer(tmp_path):
    exact = narrow(dataclasses.replace(SSD300_VOC, mean=(123.675, 116.28, 103.53)), 20)
    folded = narrow(SSD300_VOC, 20)
    groups, scale = random_layers(exact, 300, 21)
    path = write_file(tmp_path, "mmdetection", 300, "VOC", groups, scale)
    load_weights(exact, path)
    assert "folded" in str(load_weights(folded, path))
    image = np.random.default_rng(1).integers(0, 256, (1, 300, 300, 3)).astype(np.float32)
    first = [
        keras.Model(m.input, m.get_layer("conv1_1").output)(image).numpy()[:, 1:-1, 1:-1]
        for m in (exact, folded)
    ]
    np.testing.assert_allclose(first[1], first[0], atol=1e-4)


def test_classes_are_matched_by_name_and_new_ones_keep_their_weights(tmp_path):
    model = narrow(SSD300_COCO, 4, ("TV monitor", "platelet", "person", "potted_plant"))
    groups, scale = random_layers(model, 300, 91)
    path = write_file(tmp_path, "torchvision", 300, "COCO", groups, scale)
    head = model.get_layer("conv8_2_logits")
    # The heads are initialized with a tenth of Xavier's weights.
    xavier = head.kernel.numpy().reshape(3, 3, -1, 6, 5) * 10
    report = load_weights(model, path)
    kernel, bias = head.kernel.numpy().reshape(3, 3, -1, 6, 5), head.bias.numpy().reshape(6, 5)
    theirs = groups[3][2][0].transpose(2, 3, 1, 0).reshape(3, 3, -1, 6, 91)
    # COCO category ids: tv 72, person 1, potted plant 64
    for ours, row in ((0, 0), (1, 72), (3, 1), (4, 64)):
        np.testing.assert_array_equal(kernel[..., ours], theirs[..., row])
        np.testing.assert_array_equal(bias[:, ours], groups[3][2][1].reshape(6, 91)[:, row])
    np.testing.assert_allclose(kernel[..., 2], xavier[..., 2], rtol=1e-6)
    np.testing.assert_array_equal(bias[:, 2], 0)
    assert dict(report.layers)["conv8_2_logits"] == (
        "sliced: background and 3 of the file's 90 classes; fresh: 1"
    )
    assert dict(report.layers)["conv8_2_offsets"] == "loaded"
    assert "platelet" in report.warnings[0]
    assert "bbox_xform_clip" in str(report)
    assert "DIFFERENCE: torchvision clips boxes" in str(report)


def keras_vgg16(top=False):
    """Builds VGG16 with the layer names of keras.applications and the width of the model."""
    x = inputs = keras.Input((32, 32, 3))
    for block, (count, filters) in enumerate(((2, 8), (2, 16), (3, 32), (3, 64), (3, 64)), 1):
        for i in range(1, count + 1):
            x = keras.layers.Conv2D(filters, 3, padding="same", name=f"block{block}_conv{i}")(x)
    if top:
        x = keras.layers.Dense(4, name="predictions")(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("name", ["v.weights.h5", "v.keras", "whole.h5", "old.h5", "v.npz"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_keras_vgg16_in_every_file_layout(tmp_path, voc_model, name):
    vgg, path = keras_vgg16(top=True), tmp_path / name
    arrays = {f"{layer.name}/{v.name}": v.numpy() for layer in vgg.layers for v in layer.weights}
    if name == "v.npz":
        np.savez(path, **arrays)
    elif name == "old.h5":  # the format of the files that keras.applications downloads
        with projects.h5py.File(path, "w") as f:
            for key, array in arrays.items():
                layer, variable = key.split("/")
                f[f"{layer}/{layer}_{ {'kernel': 'W', 'bias': 'b'}[variable] }_1:0"] = array
    elif name == "v.weights.h5":
        vgg.save_weights(path)
    else:
        vgg.save(path)
    report = load_weights(voc_model, path)
    for layer in CONVOLUTIONS:
        theirs = f"block{layer[4]}_conv{layer[6]}"
        np.testing.assert_array_equal(voc_model.get_layer(layer).kernel, arrays[f"{theirs}/kernel"])
        np.testing.assert_array_equal(voc_model.get_layer(layer).bias, arrays[f"{theirs}/bias"])
    assert report.project == "keras_vgg16"
    assert report.fresh[:2] == ("fc6", "fc7")
    assert "START WITH RANDOM VALUES" in str(report)
    assert set(report.skipped) == {"predictions/kernel", "predictions/bias"}


def test_reduced_vgg16_of_caffe_and_amdegroot(tmp_path, voc_model):
    (vgg, *_), _ = random_layers(voc_model, 300, 21)
    names = projects.layer_names("caffe", 300)[0]
    caffe = tmp_path / "VGG_ILSVRC_16_layers_fc_reduced.caffemodel"
    caffe.write_bytes(projects.caffemodel([(n, list(p)) for n, p in zip(names, vgg, strict=True)]))
    places = projects.sequential_places()
    torch = tmp_path / "vgg16_reducedfc.safetensors"
    torch.write_bytes(
        projects.safetensors(
            {
                f"{place}.{v}": array[:, ::-1] if place == 0 and v == "weight" else array
                for place, pair in zip(places, vgg, strict=True)
                for v, array in zip(("weight", "bias"), pair, strict=True)
            }
        )
    )
    for path, source in ((caffe, "caffe"), (torch, "amdegroot_vgg16")):
        for variable in voc_model.trainable_variables:
            variable.assign(variable * 0)
        report = load_weights(voc_model, path)
        assert report.project == source
        unsure = ("images: RGB assumed; conv1_1 is not that of the ImageNet VGG16",)
        assert report.warnings == (unsure if source == "amdegroot_vgg16" else ())
        for i, name in ((0, "conv1_1"), (12, "conv5_3"), (13, "fc6"), (14, "fc7")):
            kernel = voc_model.get_layer(name).kernel
            np.testing.assert_array_equal(kernel, vgg[i][0].transpose(2, 3, 1, 0))
        assert "conv8_1" in report.fresh


@pytest.fixture(scope="module")
def amdegroot(tmp_path_factory, voc_model):
    """A complete, valid state dict."""
    groups, scale = random_layers(voc_model, 300, 21)
    *names, scale_name = projects.layer_names("amdegroot", 300)
    return {
        scale_name: scale,
        **{
            f"{n}.{v}": a
            for ns, group in zip(names, groups, strict=True)
            for n, pair in zip(ns, group, strict=True)
            for v, a in zip(("weight", "bias"), pair, strict=True)
        },
    }


def renamed(tensors):
    return {k.replace("extras.3.weight", "extras.3.kernel"): v for k, v in tensors.items()}


def without_heads(tensors):
    return {k: v for k, v in tensors.items() if not k.startswith(("loc", "conf"))}


def with_one(name, change):
    def broken(tensors):
        return {**tensors, name: change(tensors[name])}

    return broken


def with_nan(array):
    return np.where(np.arange(array.size).reshape(array.shape) == 5, np.float32("nan"), array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"lacks extras.3.weight; unknown tensors: extras.3.kernel"),
        (without_heads, r"lacks loc.0.weight, loc.0.bias, loc.1.weight and 21 more"),
        (
            with_one("vgg.2.weight", lambda a: a.astype(np.float16)),
            r"vgg.2.weight is float16.*v.float\(\)",
        ),
        (with_one("vgg.2.weight", lambda a: a.astype(np.float64)), "vgg.2.weight is float64"),
        (
            with_one("vgg.2.bias", lambda a: a.astype(projects.ml_dtypes.bfloat16)),
            "vgg.2.bias is bfloat16",
        ),
        (with_one("vgg.2.bias", with_nan), "vgg.2.bias holds values that are not finite"),
        (with_one("vgg.2.weight", lambda a: a[0]), r"vgg.2.weight has shape \(8, 3, 3\)"),
        (
            with_one("vgg.31.weight", lambda a: a[:8]),
            r"vgg.31.weight has shape \(8, 64, 3, 3\), but must have \(128, 64, 3, 3\) for the "
            r"model's fc6/kernel$",
        ),
        (with_one("conf.3.bias", lambda a: a[:30]), "heads do not agree"),
        (with_one("conf.3.weight", lambda a: a[:30]), "heads do not agree"),
        (
            with_one("loc.3.weight", lambda a: a[:8]),
            r"loc.3.weight has shape \(8, 32, 3, 3\), but must have \(24, 32, 3, 3\) for .*conv9_2",
        ),
        (with_one("loc.3.bias", lambda a: a[:7]), "loc.3.bias has shape"),
        (lambda t: {f"layer4.{k}": v for k, v in t.items()}, "no known project"),
    ],
)
def test_a_wrong_file_is_refused_and_the_model_untouched(
    tmp_path, voc_model, amdegroot, change, message
):
    path = tmp_path / "w.safetensors"
    path.write_bytes(projects.safetensors(change(amdegroot)))
    before = voc_model.get_weights()
    with pytest.raises(ValueError, match=message) as error:
        load_weights(voc_model, path)
    assert str(path) in str(error.value)
    for a, b in zip(before, voc_model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (
            SSD300_COCO,
            {},
            "its tiling is that of SSD300_VOC, but the model has that of SSD300_COCO",
        ),
        (CONFIGS["SSD512_VOC"], {}, "its tiling is that of SSD300_VOC"),
        (
            dataclasses.replace(SSD300_VOC, clip=True),
            {},
            r"clip \(=False\), but the model's config has clip \(=True\)",
        ),
        (
            SSD300_VOC,
            {"weights_config": dataclasses.replace(SSD300_VOC, clip=True)},
            r"clip \(=True\), but the model's config has clip \(=False\)",
        ),
        (
            SSD300_VOC,
            {"weights_project": "torch"},
            r"weights_project \(=torch\) must be one of keras_vgg16, torchv",
        ),
        (
            SSD300_VOC,
            {"weights_project": "lufficc"},
            "a file of lufficc must have more tensors: it lacks",
        ),
        (SSD300_VOC, {"weights_config": SSD300_COCO}, "its tiling is that of SSD300_COCO"),
        (SSD300_VOC, {"weights_labels": ("a", "b")}, "weights_labels has 2 names, .* 20 classes"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(
    tmp_path, amdegroot, config, options, message
):
    path = tmp_path / "w.safetensors"
    path.write_bytes(projects.safetensors(amdegroot))
    model = narrow(config, 20, VOC_CLASSES)
    with pytest.raises(ValueError, match=message):
        load_weights(model, path, **options)


@pytest.mark.parametrize("change", [{}, {"clip": True}, {"integer_sizes": False}])
def test_own_models_are_fine_tuned_with_other_classes(tmp_path, change):
    config = dataclasses.replace(SSD300_VOC, mean=(120.0, 110.0, 100.0), **change)
    theirs = narrow(config, 2, ("cat", "dog"))
    theirs.compile(keras.optimizers.SGD(momentum=0.9))  # its variables are not weights
    theirs.optimizer.build(theirs.trainable_variables)
    for variable in theirs.trainable_variables:
        variable.assign_add(np.random.default_rng(1).normal(0, 0.01, variable.shape))
    path = tmp_path / "theirs.keras"
    theirs.save(path)
    model = narrow(config, 3, ("dog", "bird", "cat"))
    report = load_weights(model, path)
    assert (report.project, report.fresh, report.skipped) == ("ssd_keras", (), ())
    image = np.random.default_rng(1).integers(0, 256, (1, 300, 300, 3)).astype(np.float32)
    expected, found = theirs(image).numpy(), model(image).numpy()
    np.testing.assert_allclose(found[..., [0, 1, 2, 3, 4, 7, 5]], expected, rtol=1e-4, atol=1e-4)


def test_a_voc_model_fine_tuned_from_coco_keeps_its_tiling(tmp_path, amdegroot):
    path = tmp_path / "w.safetensors"
    path.write_bytes(projects.safetensors(amdegroot))
    model = narrow(SSD300_COCO, 20)
    assert load_weights(model, path, weights_config=SSD300_COCO).fresh == ()


def test_weights_of_full_width_do_not_fit_a_narrow_model(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, **{f"{n}/{v.name}": v for n, v in _pairs(keras_vgg16())})
    model = ssd_vgg16(SSD300_VOC, 1, width=1 / 4)
    with pytest.raises(ValueError, match=r"kernel has shape \(3, 3, 3, 8\), .* width 1.0 only"):
        load_weights(model, path)


def test_a_narrow_model_does_not_download_imagenet(monkeypatch):
    monkeypatch.setattr("ssd_keras.vgg16.imagenet_tensors", lambda: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match=r"width \(=0.25\) must be 1 for weights=.imagenet."):
        ssd_vgg16(SSD300_VOC, 1, width=1 / 4, weights="imagenet")


def _pairs(model):
    return [(layer.name, v) for layer in model.layers for v in layer.weights]


def test_ssd_vgg16_takes_all_that_load_weights_takes(tmp_path):
    groups, scale = random_layers(narrow(SSD300_COCO, 1), 300, 3)
    path = write_file(tmp_path, "lufficc", 300, "COCO", groups, scale)
    options = {"width": WIDTH, "labels": ("b",), "weights": path, "weights_labels": ("a", "b")}
    model = ssd_vgg16(SSD300_COCO, 1, weights_config=SSD300_COCO, **options)
    bias = model.get_layer("conv11_2_logits").bias.numpy().reshape(4, 2)
    np.testing.assert_array_equal(bias, groups[3][5][1].reshape(4, 3)[:, [0, 2]])
    with pytest.raises(ValueError, match="a file of amdegroot must have more tensors: it lacks"):
        ssd_vgg16(SSD300_COCO, 1, weights_project="amdegroot", **options)
