import subprocess
import sys
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import convert as lite_convert

from ssd_keras.boxes import cyxhw_to_yxyx
from ssd_keras.config import SSD300_VOC, SSD512_VOC
from ssd_keras.data.records import write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.detections import DetectionDecoder
from ssd_keras.export.checks import in_float32, sample_pictures
from ssd_keras.export.descriptions import tflite_description
from ssd_keras.export.tflite import converter, graphs
from ssd_keras.export.tflite.checks import check_structure
from ssd_keras.export.tflite.graphs import graph, suppress
from ssd_keras.export.tflite.interpreter import TFLiteDetector
from ssd_keras.images import warp
from ssd_keras.inference.detector import keras_detector, load_detector
from ssd_keras.layers import DilatedConv2D
from ssd_keras.model import ssd_vgg16
from ssd_keras.tiling import default_boxes
from tests.export.models import LABELS, small_model, spread_model
from tests.processes import ssd_keras
from tests.tiny import SSD64


def sample_images():
    return np.stack([warp(picture, 64) for picture in sample_pictures()])


@pytest.fixture(scope="module")
def model():
    return spread_model(SSD64)


@pytest.fixture(scope="module")
def export(model, tmp_path_factory):
    """Returns a function that exports the model; each kind and precision is exported once."""
    folder = tmp_path_factory.mktemp("tflite")
    calibration = tf.data.Dataset.from_tensor_slices((sample_images(), [0, 0, 0])).batch(2)

    def cached(kind, precision):
        path = folder / f"{kind}_{precision}.tflite"
        if not path.exists():
            given = calibration if precision == "int8" else None
            converter.export_tflite(model, path, kind=kind, precision=precision, calibration=given)
        return path

    return cached


# --- suppression with the operators of TensorFlow Lite ---


@pytest.mark.parametrize("score_threshold", [0.01, 0.6])
def test_suppression_equals_the_combined_one(score_threshold):
    rng = np.random.default_rng(0)
    predictions = rng.normal(0, 2, (1, 8732, 9)).astype(np.float32)
    decoder = DetectionDecoder(SSD300_VOC, score_threshold=score_threshold, max_detections=50)
    found = suppress(decoder, *decoder.candidates(tf.constant(predictions)))
    expected = decoder(predictions)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def test_suppression_of_none_and_of_fewer_than_k_boxes():
    decoder = DetectionDecoder(SSD300_VOC, max_detections=5)
    boxes = np.zeros((1, 7, 4), np.float32)
    boxes[0, :, 2:] = np.arange(1, 8)[:, None] / 10
    scores = np.zeros((1, 7, 2), np.float32)
    assert suppress(decoder, boxes, scores)["num_detections"].numpy().tolist() == [0]
    scores[0, 2] = 0.5, 0.7
    scores[0, 3, 1] = 0.6  # suppressed: IoU 9/16 with the better box of its class
    found = suppress(decoder, boxes, scores)
    assert found["num_detections"].numpy().tolist() == [2]
    assert found["classes"].numpy().tolist() == [[2, 1, 0, 0, 0]]
    np.testing.assert_allclose(found["scores"], [[0.7, 0.5, 0, 0, 0]])
    np.testing.assert_allclose(found["boxes"][0, 1:3], [[0, 0, 0.3, 0.3], [0, 0, 0, 0]])


# --- exported files ---


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_raw_files_give_every_box_and_score(model, export, precision):
    path = export("raw", precision)
    image = sample_images()[0]
    outputs = TFLiteDetector(path).run(image)
    boxes, scores = DetectionDecoder(SSD64).candidates(model(image[None]))
    # The bounds below are far smaller than the spread of the values.
    assert np.mean(np.abs(boxes - cyxhw_to_yxyx(default_boxes(SSD64)))) > 0.03
    assert np.mean(np.abs(scores - np.mean(scores, axis=1))) > 0.1
    bound = {"float32": 1e-6, "float16": 1e-3, "int8": 0.01}[precision]
    assert np.mean(np.abs(outputs["boxes"] - boxes)) < bound
    assert np.mean(np.abs(outputs["scores"] - scores)) < bound


def test_detections_are_those_of_the_decoder(model, export):
    outputs = TFLiteDetector(export("detections", "float32")).run(sample_images()[1])
    assert {name: (v.dtype, v.shape) for name, v in outputs.items()} == {
        "detection_boxes": (np.float32, (1, 200, 4)),
        "detection_scores": (np.float32, (1, 200)),
        "detection_classes": (np.int32, (1, 200)),
        "num_detections": (np.int32, (1,)),
    }
    expected = DetectionDecoder(SSD64)(model(sample_images()[1:2]))
    np.testing.assert_allclose(outputs["detection_scores"], expected["scores"], atol=1e-5)


def test_thresholds_are_baked_in(model, tmp_path):
    images = sample_images()
    scores = DetectionDecoder(SSD64, iou_threshold=0.1)(model(images))["scores"].numpy()
    fifth = float(scores[0, 4:6].mean())  # 5 scores of the first image are above it
    thresholds = {"score_threshold": fifth, "iou_threshold": 0.1, "max_detections": 7}
    path = tmp_path / "a.tflite"
    converter.export_tflite(model, path, **thresholds)
    run = Interpreter(str(path)).get_signature_runner()

    def decoded(**options):
        found = DetectionDecoder(SSD64, **options)(model(images))
        return found["num_detections"].numpy(), found["scores"].numpy()

    counts, scores = decoded(**thresholds)
    for i, image in enumerate(images):
        outputs = run(image=image[None])
        assert outputs["num_detections"] == counts[i]
        np.testing.assert_allclose(outputs["detection_scores"][0], scores[i], atol=1e-5)
    for name in thresholds:  # each of the three has an effect on these images
        others = {key: value for key, value in thresholds.items() if key != name}
        changed = decoded(**others)[1]
        assert changed.shape != scores.shape or np.abs(changed - scores).max() > 1e-3, name


def test_int8_takes_uint8_and_keeps_integer_classes_and_small_scores(export):
    detector = TFLiteDetector(export("detections", "int8"))
    signature = Interpreter(str(export("detections", "int8"))).get_signature_runner()
    assert signature.get_input_details()["image"]["dtype"] == np.uint8
    outputs = detector.run(sample_images()[0])
    assert outputs["detection_classes"].dtype == np.int32
    raw = TFLiteDetector(export("raw", "int8")).run(sample_images()[0])
    levels = raw["scores"] * 256  # an 8-bit softmax would give integers
    assert np.mean(np.abs(levels - np.rint(levels)) > 0.01) > 0.5


def test_sizes(model, export):
    sizes = {p: export("raw", p).stat().st_size for p in ("float32", "float16", "int8")}
    assert sizes["float32"] - sizes["float16"] == pytest.approx(2 * model.count_params(), rel=0.05)
    assert sizes["float32"] - sizes["int8"] == pytest.approx(3 * model.count_params(), rel=0.2)


@pytest.mark.parametrize("value", [0.0, 255.0, np.nan])
def test_constant_and_nan_images(export, value):
    (found,) = TFLiteDetector(export("detections", "float32"))([np.full((64, 64, 3), value)])
    assert np.all(np.isfinite(found["boxes"]))
    assert np.isfinite(value) or len(found["scores"]) == 0


@pytest.mark.parametrize("kind", ["raw", "detections", "mediapipe"])
def test_every_kind_detects_and_is_evaluated_as_a_keras_model_is(model, export, kind):
    detector = load_detector(export(kind, "float32"))
    found = detector.detect(sample_pictures()[:2])
    expected = keras_detector(model).detect(sample_pictures()[:2])
    assert detector.labels == LABELS
    for actual, wanted in zip(found, expected, strict=True):
        assert actual["classes"].dtype == np.int32
        assert set(wanted["classes"]) == {1, 2, 3}
        np.testing.assert_array_equal(actual["classes"], wanted["classes"])
        np.testing.assert_allclose(actual["scores"], wanted["scores"], atol=1e-5)
        np.testing.assert_allclose(actual["boxes"], wanted["boxes"], atol=1e-5)
    with pytest.raises(ValueError, match="one of 1 images cannot be decoded"):
        detector.detect([b"no image"])


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("raw", "float32"), ("raw", "int8"), ("detections", "int8"), ("mediapipe", "float32")],
)
def test_runs_in_compiled_model(export, kind, precision):
    from ai_edge_litert.compiled_model import CompiledModel

    path = export(kind, precision)
    compiled = CompiledModel.from_file(str(path))
    inputs, outputs = compiled.create_input_buffers(0), compiled.create_output_buffers(0)
    image = np.rint(sample_images()[:1])
    inputs[0].write(image.astype(np.uint8 if precision == "int8" else np.float32))
    compiled.run_by_index(0, inputs, outputs)
    names = compiled.get_signature_list()["serving_default"]["outputs"]
    for name, expected in TFLiteDetector(path).run(image[0]).items():
        found = outputs[names.index(name)].read(expected.size, expected.dtype.type)
        np.testing.assert_allclose(found, expected.ravel(), atol=1e-5, err_msg=name)


def test_runs_without_tensorflow_keras_and_this_package(export, tmp_path):
    script = """
import sys
for name in ("tensorflow", "keras", "ssd_keras"):
    sys.modules[name] = None
import numpy as np
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(model_path=sys.argv[1]).get_signature_runner()
print(run(image=np.zeros((1, 64, 64, 3), np.float32))["num_detections"].shape)
"""
    arguments = [sys.executable, "-c", script, export("detections", "float32")]
    done = subprocess.run(arguments, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "(1,)"


def test_labels_and_thresholds_are_stored(export):
    path = export("raw", "float32")
    assert zipfile.ZipFile(path).read("labels.txt") == b"disk\nring\nsquare\n"
    description = tflite_description(path)
    assert (description["kind"], description["precision"]) == ("raw", "float32")


def test_ssd512_with_dynamic_range(tmp_path):
    model = small_model(SSD512_VOC)
    path = tmp_path / "ssd512.tflite"
    found = converter.export_tflite(model, path, kind="raw", precision="dynamic")
    assert 0 < found.box_difference < 0.05


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_openvino_reads_the_raw_kind(model, export, precision):
    openvino = pytest.importorskip("openvino")
    path = export("raw", precision)
    # The default is bfloat16 on CPUs that have it.
    core, hint = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    network = core.compile_model(core.read_model(str(path)), "CPU", hint)
    image = sample_images()[:1]
    if precision == "int8":
        image = np.rint(image).astype(np.uint8)
    found = {tuple(value.shape)[-1]: value for value in network(image).values()}
    expected = TFLiteDetector(path).run(sample_images()[0])
    tolerance = {"float32": 1e-4, "float16": 1e-3, "int8": 0.05}[precision]
    np.testing.assert_allclose(found[4], expected["boxes"], atol=tolerance)
    np.testing.assert_allclose(found[len(LABELS)], expected["scores"], atol=tolerance)


def test_a_model_of_mixed_precision_is_exported_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = small_model(SSD64)
    finally:
        keras.config.set_dtype_policy("float32")
    assert mixed.get_layer("conv1_1").compute_dtype == "float16"
    copy = in_float32(mixed)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    image = sample_images()[:1]
    np.testing.assert_allclose(copy(image), mixed(image), atol=0.05)
    assert copy.labels == LABELS


# --- failures that TensorFlow's converter does not report ---


def convert(model, batch=1, track=True, kind="raw", size=64):
    spec = tf.TensorSpec([batch, size, size, 3], tf.float32, "image")
    function = graph(model, DetectionDecoder(SSD64), kind)
    concrete = tf.function(function, input_signature=[spec]).get_concrete_function()
    tracked = tf.Module()
    if track:
        tracked.variables_ = [variable.value for variable in model.variables]
    else:
        tracked.model = model
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], tracked)


def test_a_file_of_uninitialized_variables_is_refused(model):
    content = convert(model, track=False).convert()
    with pytest.raises(RuntimeError, match=r"must not have: .*VAR_HANDLE"):
        check_structure(content, model, "raw", "float32")


def test_a_dilated_convolution_taken_apart_is_refused(model, monkeypatch):
    """The converter reassembles the dilated convolution of Keras for a fixed batch size only."""
    keras_call = keras.layers.Conv2D.call
    monkeypatch.setattr(DilatedConv2D, "call", lambda self, x, training=None: keras_call(self, x))
    content = convert(model, batch=None).convert()
    with pytest.raises(RuntimeError, match=r"must not have: .*SPACE_TO_BATCH_ND"):
        check_structure(content, model, "raw", "float32")


def test_a_doubled_operator_and_a_variable_batch_are_refused(model, export):
    def changed(change):
        file = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
        change(file.subgraphs[0], [c.builtinCode for c in file.operatorCodes])
        builder = flatbuffers.Builder(len(content))
        builder.Finish(file.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def twice(graph, codes):
        norm = codes.index(schema.BuiltinOperator.L2_NORMALIZATION)
        graph.operators += [o for o in graph.operators if o.opcodeIndex == norm]

    def opened(graph, codes):
        graph.tensors[graph.inputs[0]].shapeSignature = np.array([-1, 64, 64, 3], np.int32)

    content = export("raw", "float32").read_bytes()
    check_structure(changed(lambda *_: None), model, "raw", "float32")
    with pytest.raises(RuntimeError, match="has 2 L2_NORMALIZATION, but must have 1"):
        check_structure(changed(twice), model, "raw", "float32")
    with pytest.raises(RuntimeError, match=r"'serving_default_image:0' .* has a variable shape"):
        check_structure(changed(opened), model, "raw", "float32")


def test_scores_in_8_bits_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(converter, "_FLOAT_OPERATORS", ())
    calibration = tf.data.Dataset.from_tensors((sample_images(), 0))
    with pytest.raises(RuntimeError, match="softmax in 8 bits"):
        converter.export_tflite(
            model,
            tmp_path / "a.tflite",
            kind="raw",
            precision="int8",
            calibration=calibration,
        )


def test_suppression_in_a_raw_file_and_another_precision_are_refused(export, model):
    content = export("detections", "float32").read_bytes()
    with pytest.raises(RuntimeError, match=r"kind 'raw' must not have: .*NON_MAX_SUPPRESSION_V4"):
        check_structure(content, model, "raw", "float32")
    wide = ssd_vgg16(SSD64, 3, width=1 / 4, labels=LABELS)
    with pytest.raises(RuntimeError, match="weights are missing or stored in another type"):
        check_structure(content, wide, "detections", "float32")


def test_a_file_that_differs_from_the_model_is_not_kept(model, export, tmp_path, monkeypatch):
    other = keras.models.clone_model(model)
    other.set_weights([w * 1.01 for w in model.get_weights()])
    content = export("raw", "float32").read_bytes()
    monkeypatch.setattr(converter, "_convert", lambda *_: content)
    monkeypatch.setattr(converter, "add_metadata", lambda content, *_: content)
    with pytest.raises(RuntimeError, match="does not agree with the Keras model"):
        converter.export_tflite(other, tmp_path / "a.tflite", kind="raw", labels=LABELS)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_suppresses_nothing_is_refused(model, tmp_path, monkeypatch):
    def all_kept(decoder, boxes, scores):
        return suppress(DetectionDecoder(SSD64, iou_threshold=1.0), boxes, scores)

    monkeypatch.setattr(graphs, "suppress", all_kept)
    with pytest.raises(RuntimeError, match="does not agree with the Keras model"):
        converter.export_tflite(model, tmp_path / "a.tflite")
    assert list(tmp_path.iterdir()) == []


def test_the_input_scale_is_1_even_after_dark_calibration(tmp_path):
    """The converter would map 255 to the brightest calibration pixel."""
    # Images brighter than the calibration images saturate the activations. The error is within the
    # tolerance only if the weights of the heads are small.
    model = small_model(SSD64)
    path, dark = tmp_path / "a.tflite", sample_images() * 0.4
    calibration = tf.data.Dataset.from_tensor_slices((dark,)).batch(1)
    converter.export_tflite(model, path, kind="raw", precision="int8", calibration=calibration)
    (image,) = Interpreter(str(path)).get_input_details()
    assert image["quantization"] == (1.0, 0)
    np.testing.assert_allclose(
        TFLiteDetector(path).run(dark[0])["scores"],
        TFLiteDetector(path).run(np.rint(dark[0]).astype(np.uint8))["scores"],
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (sample_images() / 255, "no pixel above 1, but must have RGB images in 0..255"),
        (sample_images().astype(np.uint8), r"images of uint8 \(64, 64, 3\), but .* float32"),
        (sample_images()[:, :32], r"float32 \(32, 64, 3\), but they must be float32 \(64, 64, 3\)"),
        (sample_images()[:0], "calibration has no pixel above 0"),
    ],
    ids=["0..1", "uint8", "size", "none"],
)
def test_calibration_with_other_images_is_refused(model, tmp_path, images, message):
    with pytest.raises(ValueError, match=message):
        converter.export_tflite(
            model,
            tmp_path / "a.tflite",
            precision="int8",
            calibration=tf.data.Dataset.from_tensor_slices((images,)).batch(2),
        )


def test_calibration_uses_the_first_hundred_images():
    images = tf.data.Dataset.from_tensor_slices((np.ones((120, 8, 8, 3), np.float32) * 9,))
    assert len(list(converter._calibration_images(images.batch(7), (8, 8)))) == 100


def test_weights_that_are_not_finite_are_refused(model, tmp_path):
    broken = keras.models.clone_model(model)
    broken.get_layer("conv1_1").bias.assign([np.nan] * 8)
    with pytest.raises(ValueError, match=r"weights of layer 'conv1_1' are not all finite"):
        converter.export_tflite(broken, tmp_path / "a.tflite")


def test_a_model_that_detects_nothing_is_exported_with_a_warning(tmp_path, caplog):
    labels = [f"class {i}" for i in range(200)]  # all scores are below 1/201 before training
    found = converter.export_tflite(small_model(SSD64, labels), tmp_path / "a.tflite", kind="raw")
    assert found.is_empty
    assert "a.tflite is not verified, nothing to compare" in caplog.text


def run_command(*arguments):
    return ssd_keras("export", "tflite", *arguments)


def test_command_passes_every_flag(model, tmp_path):
    model.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    write_records(draw_shapes(2, seed=1), tmp_path / "records", SHAPE_LABELS, shards=1)
    flags = {
        "model": tmp_path / "model.keras",
        "out": tmp_path / "new" / "detector.tflite",
        "kind": "raw",
        "precision": "float16,int8",
        "calibration_records": tmp_path / "records",
        "labels": tmp_path / "labels.txt",
        "score_threshold": 0.02,
        "iou_threshold": 0.5,
        "max_detections": 150,
    }
    done = run_command(*(f"--{name}={value}" for name, value in flags.items()))
    assert done.returncode == 0, done.stderr
    for precision in ("float16", "int8"):
        found = tflite_description(tmp_path / "new" / f"detector_{precision}.tflite")
        assert (found["kind"], found["precision"], found["labels"]) == (
            "raw", precision, ["a", "b", "c"],
        )  # fmt: skip
        thresholds = [found[f"{n}_threshold"] for n in ("score", "iou")]
        assert [*thresholds, found["max_detections"]] == [0.02, 0.5, 150]


def test_command_checks_all_precisions_before_any_work(tmp_path):
    out = tmp_path / "a.tflite"
    done = run_command("--model=none.keras", f"--out={out}", "--precision=float32,int8")
    assert done.returncode == 1
    assert "precision 'int8' needs images" in done.stderr


def test_bad_arguments(model, export, tmp_path):
    path = tmp_path / "a.tflite"
    with pytest.raises(ValueError, match=r"kind \(='nms'\) must be one of raw, detections"):
        converter.export_tflite(model, path, kind="nms")
    with pytest.raises(ValueError, match="precision 'int8' needs images"):
        converter.export_tflite(model, path, precision="int8")
    images = tf.data.Dataset.from_tensors(tf.zeros([1, 64, 64, 3]))
    with pytest.raises(ValueError, match=r"calibration must not be .* precision \(='float16'\)"):
        converter.export_tflite(model, path, precision="float16", calibration=images)
    for wrong in (tmp_path, tmp_path / "detector", tmp_path / "a.keras"):
        with pytest.raises(ValueError, match=r"must be a file whose name ends in \.tflite"):
            converter.export_tflite(model, wrong)
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="must be made by export_tflite"):
        TFLiteDetector(path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        TFLiteDetector(tmp_path / "nothing.tflite")
    with pytest.raises(ValueError, match=r"shape \(32, 64, 3\), but .* \(64, 64, 3\)"):
        TFLiteDetector(export("raw", "float32")).run(np.zeros((32, 64, 3)))


def test_int8_says_that_another_tensorflow_lacks_its_converter(monkeypatch):
    function = tf.function(lambda x: x).get_concrete_function(tf.TensorSpec([1], tf.float32))
    public = tf.lite.TFLiteConverter.from_concrete_functions([function])
    assert converter._quantizer(public) is not None
    monkeypatch.setattr(lite_convert, "mlir_quantize", lambda model, input_data_type: model)
    with pytest.raises(RuntimeError, match=r"'int8'.* private functions .*TensorFlow 2\.21"):
        converter._quantizer(public)
