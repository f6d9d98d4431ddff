import collections
import io
import json
import shutil
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.config import SSD300_VOC, SSD512_COCO
from ssd_keras.detections import DetectionDecoder, unpad
from ssd_keras.export import agreement, checks, saved_model, tolerances
from ssd_keras.export.descriptions import saved_model_description, saved_model_labels
from ssd_keras.inference.detector import load_detector
from ssd_keras.model import ssd_vgg16
from tests.cli import in_process, loaded_command
from tests.export.models import LABELS, small_model
from tests.processes import ROOT, ssd_keras
from tests.tiny import TINY

RUN_ALONE = """
    import sys
    sys.modules["keras"] = sys.modules["ssd_keras"] = None
    import numpy as np, tensorflow as tf
    signatures = tf.saved_model.load(sys.argv[1]).signatures
    images = np.load(sys.argv[2])
    for batch in (images[:1], images):
        outputs = signatures["serving_default"](images=tf.constant(batch))
        outputs = {name: value.numpy() for name, value in outputs.items()}
    np.savez(sys.argv[3], **outputs)
"""


def encode(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format, **options)
    return buffer.getvalue()


def pictures(count=3, height=300, width=300):
    coarse = np.random.default_rng(1).integers(0, 256, (count, 6, 6, 3))
    return tf.image.resize(coarse, (height, width)).numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    return small_model(SSD300_VOC)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("serving") / "detector"
    found = saved_model.export_saved_model(model, path)
    assert found.detections > 0
    return path


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def assert_agrees(model, outputs, images, config=SSD300_VOC):
    decoder = DetectionDecoder(config)
    references = agreement.reference(model, decoder, images.astype(np.float32))
    found = agreement.compare(
        references, unpad(outputs), decoder, tolerances.SAVED_MODEL["float32"]
    )
    assert found.detections > 0
    checks.check_agreement("outputs", found, tolerances.SAVED_MODEL["float32"])


def test_thresholds_are_baked_in(tmp_path):
    model, images = small_model(TINY), pictures(height=64, width=64)
    scores = DetectionDecoder(TINY)(model(images.astype(np.float32)))["scores"]
    thresholds = {"score_threshold": float(np.median(scores)), "iou_threshold": 0.1}
    saved_model.export_saved_model(model, tmp_path / "strict", **thresholds)
    detector = tf.saved_model.load(str(tmp_path / "strict")).signatures["serving_default"]
    found = detector(images=tf.constant(images))
    decoder = DetectionDecoder(TINY, **thresholds)
    expected = decoder(model(images.astype(np.float32)))
    np.testing.assert_array_equal(found["num_detections"], expected["num_detections"])
    np.testing.assert_allclose(found["detection_scores"], expected["scores"], atol=1e-4)
    for name in thresholds:  # each of the two has an effect on these images
        one = DetectionDecoder(TINY, **{name: thresholds[name]})
        counts = one(model(images.astype(np.float32)))["num_detections"]
        assert not np.array_equal(counts, expected["num_detections"]), name


def test_runs_in_a_process_without_keras_and_without_this_package(model, exported, tmp_path):
    images = pictures()
    np.save(tmp_path / "images.npy", images)
    arguments = [exported, tmp_path / "images.npy", tmp_path / "outputs.npz"]
    script = textwrap.dedent(RUN_ALONE)
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=tmp_path)
    outputs = dict(np.load(tmp_path / "outputs.npz"))
    assert {name: (v.dtype, v.shape) for name, v in outputs.items()} == {
        "detection_boxes": (np.float32, (3, 200, 4)),
        "detection_scores": (np.float32, (3, 200)),
        "detection_classes": (np.int32, (3, 200)),
        "num_detections": (np.int32, (3,)),
    }
    assert_agrees(model, outputs, images)


def test_hostile_images_cost_little_memory(exported):
    """Small files that claim gigabytes, in `prepare`, in training and in the SavedModel."""
    command = [sys.executable, "-m", "tests.hostile_images", exported]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 24
    for name, reader, size, megabytes, _, refused in rows:
        assert size < 7_000_000, name
        assert megabytes < 150, (name, reader)
        # One frame of 16 million pixels is decoded.
        assert refused or name == "GIF of 500 frames", (name, reader)


def test_the_pixel_limit_is_exported(model, tmp_path):
    saved_model.export_saved_model(model, tmp_path / "small", max_pixels=300 * 300)
    assert saved_model_description(tmp_path / "small")["max_pixels"] == 90000
    encoded = tf.saved_model.load(str(tmp_path / "small")).signatures["encoded"]
    images = [encode(pictures(1, *size)[0]) for size in ((300, 300), (300, 301))]
    decoded = encoded(image_bytes=tf.constant(images))["image_decoded"]
    assert decoded.numpy().tolist() == [True, False]
    with pytest.raises(ValueError, match=r"max_pixels \(=0\) must be at least 1"):
        saved_model.export_saved_model(model, tmp_path / "none", max_pixels=0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("labels.txt", lambda text: text[: text.index("\n") + 1], "its 1 names are not those in"),
        ("labels.txt", lambda text: text + "disk\n", "its 4 names are not those in"),
        ("detector.json", lambda text: text.replace('"ring"', '"disk"'), "must all differ"),
        (
            "detector.json",
            lambda text: text.replace('"ring",', ""),
            "labels has 2 names, but num_cl",
        ),
        ("detector.json", lambda text: text.replace("0.01", '"a"'), r"'score_threshold' \(='a'\)"),
        ("detector.json", lambda text: "[" * 100_000, "nested too deeply"),
        ("detector.json", lambda text: "{}", "'labels' is missing"),
    ],
)
def test_damaged_descriptions_are_named(exported, tmp_path, name, change, message):
    copy = shutil.copytree(exported, tmp_path / "copy")
    path = copy / "assets" / name
    path.write_text(change(path.read_text()))
    with pytest.raises(
        ValueError, match=rf"assets/{name} cannot be read \(.*{message}.*export the"
    ):
        load_detector(copy)


def test_all_signatures_detect_the_same(signatures):
    images = pictures(2)
    expected = signatures["serving_default"](images=tf.constant(images))
    any_size = signatures["any_size"](images=tf.constant(images))
    encoded = signatures["encoded"](image_bytes=tf.constant([encode(i) for i in images]))
    resized = signatures["resized"](images=tf.constant(images, tf.float32))
    for name, value in expected.items():
        np.testing.assert_array_equal(any_size[name], value)
        np.testing.assert_array_equal(resized[name], value)
        np.testing.assert_array_equal(encoded[name], value)


def test_any_size_resizes_as_evaluation_does(model, signatures):
    images = pictures(2, 123, 457)
    outputs = signatures["any_size"](images=tf.constant(images))
    assert_agrees(model, outputs, tf.image.resize(images, (300, 300)).numpy())
    encoded = signatures["encoded"](image_bytes=tf.constant([encode(i) for i in images]))
    np.testing.assert_array_equal(encoded["detection_boxes"], outputs["detection_boxes"])


def test_an_image_of_one_pixel_and_a_constant_image(signatures):
    for image in (np.full((1, 1, 1, 3), 7, np.uint8), np.full((1, 900, 20, 3), 255, np.uint8)):
        outputs = signatures["any_size"](images=tf.constant(image))
        assert np.all(np.isfinite(outputs["detection_boxes"]))


def test_bytes_that_are_not_an_image_do_not_affect_the_batch(signatures):
    image = encode(pictures(1)[0])
    batch = [b"no picture", image, image[: len(image) // 2], b""]
    outputs = signatures["encoded"](image_bytes=tf.constant(batch))
    alone = signatures["encoded"](image_bytes=tf.constant([image]))
    assert outputs["image_decoded"].numpy().tolist() == [False, True, False, False]
    assert outputs["num_detections"].numpy()[[0, 2, 3]].tolist() == [0, 0, 0]
    assert not np.any(outputs["detection_scores"].numpy()[[0, 2, 3]])
    np.testing.assert_allclose(
        outputs["detection_scores"][1], alone["detection_scores"][0], atol=1e-5
    )


def test_exif_orientation_is_ignored(signatures):
    image = pictures(1, 80, 120)[0]
    turned = Image.Exif()
    turned[0x0112] = 6
    batch = [encode(image, "JPEG"), encode(image, "JPEG", exif=turned)]
    boxes = signatures["encoded"](image_bytes=tf.constant(batch))["detection_boxes"]
    np.testing.assert_array_equal(boxes[0], boxes[1])


def test_gray_rgba_and_jpeg_images_share_a_batch(signatures):
    gray, rgba = pictures(1)[0, :, :, 0], np.dstack([pictures(1)[0], pictures(1)[0, :, :, 0]])
    batch = [encode(gray), encode(rgba), encode(gray, "JPEG")]
    assert signatures["encoded"](image_bytes=tf.constant(batch))["image_decoded"].numpy().all()


def test_an_empty_batch(signatures):
    outputs = signatures["encoded"](image_bytes=tf.constant([], tf.string))
    assert outputs["detection_boxes"].shape == (0, 200, 4)


@pytest.mark.parametrize(
    ("signature", "images", "message"),
    [
        ("serving_default", tf.zeros([1, 300, 300, 3]), "expected to be a uint8 tensor"),
        ("serving_default", tf.zeros([1, 200, 300, 3], tf.uint8), r"\[B, 300, 300, 3\]; signature"),
        (
            "serving_default",
            tf.zeros([300, 300, 3], tf.uint8),
            r"images must be \[B, 300, 300, 3\]",
        ),
        ("any_size", tf.zeros([300, 300, 3], tf.uint8), r"images must be \[B, H, W, 3\]"),
        ("any_size", tf.zeros([1, 30, 30, 1], tf.uint8), r"images must be \[B, H, W, 3\]"),
        ("any_size", tf.zeros([1, 0, 30, 3], tf.uint8), r"images must be .*, H and W above 0"),
        ("resized", tf.zeros([1, 300, 300, 3], tf.uint8), "expected to be a float tensor"),
        ("resized", tf.zeros([1, 200, 300, 3]), r"images must be \[B, 300, 300, 3\]"),
        ("encoded", tf.constant("one"), r"image_bytes must be \[B\]"),
        ("encoded", tf.constant([["one"]]), r"image_bytes must be \[B\]"),
    ],
)
def test_wrong_input_gives_a_readable_error(signatures, signature, images, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures[signature](**{"image_bytes" if signature == "encoded" else "images": images})


def test_runs_in_a_session_as_in_a_server(exported, signatures):
    batch = [encode(pictures(1)[0]), b"no picture"]
    expected = signatures["encoded"](image_bytes=tf.constant(batch))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(exported))
        signature = meta.signature_def["encoded"]
        outputs = {name: info.name for name, info in signature.outputs.items()}
        found = session.run(outputs, {signature.inputs["image_bytes"].name: batch})
    assert found["image_decoded"].tolist() == [True, False]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_labels_and_thresholds_are_stored(exported):
    assert (exported / "assets" / "labels.txt").read_text() == "disk\nring\nsquare\n"
    assert saved_model_labels(exported) == LABELS
    description = saved_model_description(exported)
    assert (description["score_threshold"], description["max_detections"]) == (0.01, 200)
    assert description["config"] == json.loads(json.dumps(SSD300_VOC.to_dict()))


def test_weights_are_stored_once(model, exported):
    stored = (exported / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert 4 * model.count_params() <= stored < 4.1 * model.count_params()


def test_ssd512_with_80_classes_and_frozen_weights(tmp_path):
    labels = [f"class {i}" for i in range(80)]
    model = small_model(SSD512_COCO, labels)
    path = tmp_path / "frozen"
    saved_model.export_saved_model(model, path, freeze=True, max_detections=50)
    detector = tf.saved_model.load(str(path))
    images = pictures(1, 512, 512)
    outputs = detector.signatures["serving_default"](images=tf.constant(images))
    assert outputs["detection_boxes"].shape == (1, 50, 4)
    assert saved_model_labels(path)[79] == "class 79"


class FakeDetector:
    def __init__(self, *arguments):
        pass

    def signatures(self):
        return {}


def test_a_file_that_differs_from_the_model_is_not_kept(model, exported, tmp_path, monkeypatch):
    other = keras.models.clone_model(model)
    other.set_weights([w * 1.01 for w in model.get_weights()])
    monkeypatch.setattr(saved_model, "_Detector", FakeDetector)
    monkeypatch.setattr(tf.saved_model, "save", lambda _, to, **__: shutil.copytree(exported, to))
    with pytest.raises(RuntimeError, match=r"does not agree with the Keras model: \d+ detections"):
        saved_model.export_saved_model(other, tmp_path / "detector")
    assert list(tmp_path.iterdir()) == []


def test_invalid_models_and_labels_are_refused(model, tmp_path):
    out = tmp_path / "detector"
    with pytest.raises(ValueError, match="labels has 2 names, but num_classes"):
        saved_model.export_saved_model(model, out, labels=["a", "b"])
    with pytest.raises(ValueError, match=r"'a\\nb' must be one line"):
        saved_model.export_saved_model(model, out, labels=["a\nb", "c", "d"])
    with pytest.raises(ValueError, match="must be made by ssd_vgg16"):
        saved_model.export_saved_model(keras.Sequential([keras.Input((3,))]), out)
    assert not out.exists()


def test_a_folder_in_use_is_refused(model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds files that are not an export"):
            saved_model.export_saved_model(model, tmp_path, overwrite=overwrite)
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="already holds an export"):
        saved_model.export_saved_model(model, earlier)
    assert checks.check_free(earlier, True, "saved_model.pb") == earlier


def test_the_command_passes_every_flag_and_overwrites(tmp_path):
    model = ssd_vgg16(TINY, 3, width=1 / 16)
    model.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    out = tmp_path / "detector"
    exported = saved_model.export_saved_model(model, out, labels=LABELS)
    assert exported.detections > 0
    assert (out / "variables" / "variables.index").is_file()
    flags = {
        "model": tmp_path / "model.keras",
        "out": out,
        "labels": tmp_path / "labels.txt",
        "score_threshold": 0.02,
        "iou_threshold": 0.5,
        "max_detections": 150,
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    done = ssd_keras("export", "saved_model", *words, "--freeze", "--overwrite")
    assert done.returncode == 0, done.stderr
    found = saved_model_description(out)
    assert found["labels"] == ["a", "b", "c"]
    thresholds = [found[f"{n}_threshold"] for n in ("score", "iou")]
    assert [*thresholds, found["max_detections"]] == [0.02, 0.5, 150]
    assert found["versions"]["tensorflow"] == tf.__version__
    # Frozen weights are stored in the graph.
    assert found["frozen"]
    assert (out / "saved_model.pb").stat().st_size > 4 * model.count_params()


def test_a_folder_without_labels_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be made by export_saved_model"):
        saved_model_labels(tmp_path)


@pytest.fixture(scope="module")
def half(model, tmp_path_factory):
    """The model in bfloat16, exported by the command."""
    folder = tmp_path_factory.mktemp("half")
    model.save(folder / "model.keras")
    flags = [f"--model={folder / 'model.keras'}", f"--out={folder / 'out'}"]
    with loaded_command("export_saved_model") as command:
        assert in_process(command, *flags, "--precision=bfloat16") == 0
    return folder / "out"


def test_bfloat16_is_in_the_weights_before_the_heads_only(half, model):
    loaded = tf.saved_model.load(str(half))
    dtypes = collections.Counter(v.dtype for v in loaded._weights)
    heads = [layer for layer in model.layers if layer.name.endswith(("_offsets", "_logits"))]
    assert dtypes[tf.float32] == 2 * len(heads)
    assert dtypes[tf.bfloat16] == len(model.variables) - 2 * len(heads)
    outputs = loaded.signatures["serving_default"](images=tf.constant(pictures(1)))
    assert outputs["detection_boxes"].dtype == outputs["detection_scores"].dtype == tf.float32
    description = saved_model_description(half)
    assert description["precision"] == "bfloat16"


def test_bfloat16_agrees_within_its_own_tolerance_only(half, model):
    images = pictures(2)
    outputs = tf.saved_model.load(str(half)).signatures["serving_default"](
        images=tf.constant(images)
    )
    decoder = DetectionDecoder(model.ssd_config)
    references = agreement.reference(model, decoder, images.astype(np.float32))
    for precision, covered in (("bfloat16", True), ("float32", False)):
        tolerance = tolerances.SAVED_MODEL[precision]
        found = agreement.compare(references, unpad(outputs), decoder, tolerance)
        assert found.detections > 0
        assert tolerance.covers(found) == covered


def test_slow_bfloat16_is_said(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(checks.logging, "warning", lambda text, *a: warnings.append(text % a))
    for flags, count in (("avx2 avx512f", 1), ("avx512_bf16 fma", 1), ("fphp bf16 sve", 1)):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
        monkeypatch.setattr(checks, "_CPU_INFO", tmp_path / "cpuinfo")
        checks.warn_if_bfloat16_is_slow()
        assert len(warnings) == count
    monkeypatch.setattr(checks, "_CPU_INFO", tmp_path / "not Linux")
    checks.warn_if_bfloat16_is_slow()
    assert len(warnings) == 1
    assert "precision bfloat16 is slower here than float32" in warnings[0]


def test_other_precisions_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"precision \(='int8'\) must be one of float32, bfloat16"):
        saved_model.export_saved_model(model, tmp_path / "out", precision="int8")
    assert not (tmp_path / "out").exists()
