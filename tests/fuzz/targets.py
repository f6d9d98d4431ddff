"""The targets of the fuzzer: each writes damaged files into a folder, and reads them.

A target is a function of a folder. It returns the function `case(rng)`, which writes one damaged
file, reads it and checks the result. Every error message must contain one of the words in
`case.names`.
"""

import contextlib
import functools
import importlib.util
import io
import json
import struct
import zipfile

import h5py
import numpy as np
import tensorflow as tf
from absl import flags as absl_flags
from PIL import Image

from ssd_keras.class_names import read_labels
from ssd_keras.data.card import Notes, read_card
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import read_samples, write_records
from ssd_keras.data.sources.coco import open_coco
from ssd_keras.data.sources.voc import open_voc
from ssd_keras.data.sources.yolo import open_yolo
from ssd_keras.export.descriptions import (
    saved_model_description,
    saved_model_labels,
    tflite_description,
)
from ssd_keras.images import decode_image
from ssd_keras.model import load_model
from ssd_keras.training.checkpoint import read_history
from ssd_keras.training.plots import plot_history
from ssd_keras.weights.formats import read_tensors
from tests.cli import in_process, loaded_command
from tests.data_sets import coco_json, encoded, make_samples, voc_xml, write, write_voc
from tests.fuzz.mutators import ODD_VALUES, damage_bytes, damage_json, damage_text
from tests.tiny import SSD64

MAX_PIXELS = 4_000_000  # so that a case is fast


def assert_valid(sample, num_classes):
    boxes = sample.boxes
    assert boxes.shape == (len(sample.labels), 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()  # False for NaN
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert ((sample.labels >= 1) & (sample.labels <= num_classes)).all()
    assert sample.height * sample.width > 0


def pictures(folder):
    noise = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    image = Image.fromarray(noise).resize((90, 60), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for image_format in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"):
        for mode in ("RGB", "L", "P"):
            for options in ({}, {"exif": exif}, {"progressive": True}):
                buffer = io.BytesIO()
                if not (image_format in ("JPEG", "WEBP") and mode == "P"):
                    image.convert(mode).save(buffer, image_format, **options)
                    files.append(buffer.getvalue())

    def case(rng):
        data = damage_bytes(rng, files[rng.integers(len(files))], head=200)
        notes = Notes()
        upright = bool(rng.integers(2))
        found = load_image(data, "a", notes, upright=upright, max_pixels=MAX_PIXELS)
        assert (found is None) == bool(notes.skipped)
        if found is None:
            try:
                decode_image(tf.constant(data), MAX_PIXELS)
            except tf.errors.InvalidArgumentError:
                return
        else:
            shape = decode_image(found.data, MAX_PIXELS).shape
            assert tuple(shape) == (found.height, found.width, 3)

    return case, ()


def voc(folder):
    xml = voc_xml([("cat", 1, 2, 30, 15), ("dog", 5, 5, 20, 18, True)])
    write_voc(folder, {"a": xml})

    def case(rng):
        write(folder / "Annotations/a.xml", damage_text(rng, xml))
        labels = {"cat": "cat", "dog": "dog"} if rng.integers(2) else None
        source = open_voc(folder, "train", labels)
        for sample in source.samples:
            assert_valid(sample, len(source.labels))

    return case, ("a.xml", "class")


def coco(folder):
    content = json.loads(
        coco_json([(1, "a.jpg"), (2, "b.jpg")], [(1, 7, [1, 2, 20, 10]), (2, 90, [0, 0, 9, 9], 1)])
    )
    content["categories"].append({"id": 0, "name": "all", "supercategory": "none"})
    for name in ("a.jpg", "b.jpg"):
        write(folder / "images" / name, encoded())

    def case(rng):
        write(folder / "x.json", damage_json(rng, content))
        source = open_coco(folder, "x.json:images")
        for sample in source.samples:
            assert_valid(sample, len(source.labels))

    return case, ("x.json", "images")


def yolo(folder):
    yaml = "path: .\nnames:\n  0: cat\n  1: dog\nnc: 2\n"
    text = "0 0.5 0.5 0.2 0.3\n1 0.1 0.1 0.4 0.1 0.3 0.4\n"
    write(folder / "images/a.jpg", encoded())

    def case(rng):
        damaged = rng.integers(2)
        write(folder / "data.yaml", damage_text(rng, yaml) if damaged else yaml)
        write(folder / "labels/a.txt", text if damaged else damage_text(rng, text))
        source = open_yolo(folder)
        for sample in source.samples:
            assert_valid(sample, len(source.labels))

    return case, ("data.yaml", "a.txt")


def label_files(folder):
    def case(rng):
        path = folder / "labels.txt"
        path.write_bytes(damage_text(rng, "cat\ndog\nn01\tbird\n"))
        names = read_labels(path)
        assert names
        assert all(isinstance(name, str) for name in names.values())

    return case, ("labels.txt",)


def cards(folder):
    write_records(make_samples(3), folder, ["a", "b", "c"], shards=2)
    content = json.loads((folder / "card.json").read_text())

    def case(rng):
        (folder / "card.json").write_bytes(damage_json(rng, content))
        card = read_card(folder)
        assert all(isinstance(name, str) for name in card.labels)
        list(read_samples(folder))

    return case, ("card.json", "tfrecord")


def records(folder):
    """Records with a valid checksum and invalid features, and shards with damaged bytes."""
    write_records(make_samples(3), folder, ["a", "b", "c"], shards=1)
    (path,) = folder.glob("*.tfrecord")
    original = path.read_bytes()
    (*_, example) = (
        tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))
    )
    card = json.loads((folder / "card.json").read_text())

    def case(rng):
        if rng.random() < 0.4:
            path.write_bytes(damage_bytes(rng, original, head=100))
        else:
            changed = tf.train.Example.FromString(example.SerializeToString())
            for _ in range(rng.integers(1, 4)):
                _damage_feature(rng, changed.features.feature)
            with tf.io.TFRecordWriter(str(path)) as writer:
                for _ in range(3):
                    writer.write(changed.SerializeToString())
        content = card | {"shard_bytes": {path.name: path.stat().st_size}}
        (folder / "card.json").write_text(json.dumps(content))
        for sample in read_samples(folder):
            assert ((sample.labels >= 1) & (sample.labels <= 3)).all()
            assert (np.abs(sample.boxes) < 1.01).all()  # False for NaN

    return case, ("tfrecord",)


def _damage_feature(rng, features):
    names = sorted(features)
    feature = features[names[rng.integers(len(names))]]
    numbers = (0, 1, -1, 7, 2**31, 2**63 - 1, -(2**63))
    floats = (0.0, -3.0, 1e30, float("nan"), float("inf"), 0.5)
    count = int(rng.integers(4))
    match rng.integers(5):
        case 0:
            feature.Clear()
        case 1:
            feature.int64_list.value[:] = [int(v) for v in rng.choice(numbers, count)]
        case 2:
            feature.float_list.value[:] = rng.choice(floats, count).tolist()
        case 3:
            feature.bytes_list.value[:] = [rng.bytes(int(rng.integers(40))) for _ in range(count)]
        case 4:
            del features[names[rng.integers(len(names))]]


def histories(folder):
    path = folder / "history.csv"
    text = "iteration,seconds,loss,val_mean_ap\n2,1.5,3.25,0.1\n4,3.0,2.5,0.2\n"

    def case(rng):
        path.write_bytes(damage_text(rng, text))
        if rng.integers(20) == 0:
            plot_history(path, folder / "plot.png")
        read_history(folder)

    return case, ("history.csv",)


def saved_models(folder):
    description = {
        "kind": "detections",
        "precision": "float32",
        "labels": ["cat", "dog"],
        "score_threshold": 0.01,
        "iou_threshold": 0.45,
        "max_detections": 200,
        "max_pixels": 1000,
        "num_classes": 2,
        "config": SSD64.to_dict(),
    }

    def case(rng):
        damaged = rng.integers(4) == 0
        text = damage_text(rng, "cat\ndog\n") if damaged else "cat\ndog\n"
        content = json.dumps(description) if damaged else damage_json(rng, description)
        write(folder / "assets/labels.txt", text)
        write(folder / "assets/detector.json", content)
        labels = saved_model_labels(folder)
        assert list(labels) == saved_model_description(folder)["labels"]
        with zipfile.ZipFile(folder / "x.tflite", "w") as archive:
            archive.writestr("detector.json", content)
        tflite_description(folder / "x.tflite")

    return case, ("labels.txt", "detector.json", "x.tflite")


def weights(folder, extension):
    """Files of weights of one format."""
    arrays = {
        "conv1_1/kernel": np.ones((3, 3, 3, 8), np.float32),
        "conv1_1/bias": np.ones(8, np.float32),
        "x": np.arange(5),
    }
    path = folder / f"w{extension}"
    if extension == ".npz":
        np.savez(path, **arrays)
    elif extension in (".h5", ".keras"):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for name, value in arrays.items():
                file[f"layers/{name}"] = value
        path.write_bytes(buffer.getvalue())
        if extension == ".keras":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("config.json", "{}")
                archive.writestr("model.weights.h5", buffer.getvalue())
    elif extension == ".safetensors":
        header, data = {}, b""
        for name, value in arrays.items():
            kind = {"float32": "F32", "int64": "I64"}[value.dtype.name]
            end = len(data) + value.nbytes
            header[name] = {
                "dtype": kind,
                "shape": value.shape,
                "data_offsets": [len(data), end],
            }
            data += value.tobytes()
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    elif extension == ".caffemodel":
        path.write_bytes(_caffemodel(arrays))
    else:
        import torch

        torch.save(
            {name: torch.tensor(value) for name, value in arrays.items()},
            path,
            _use_new_zipfile_serialization=extension == ".pth",
        )
    original = path.read_bytes()

    def case(rng):
        path.write_bytes(damage_bytes(rng, original, head=300))
        for value in read_tensors(path).values():
            assert isinstance(value, np.ndarray)

    return case, (path.name,)


def _caffemodel(arrays):
    """A NetParameter with one layer; field numbers of caffe.proto."""

    def field(number, content):
        return bytes([number << 3 | 2]) + _varint(len(content)) + content

    def varint_field(number, value):
        return bytes([number << 3]) + _varint(value)

    def blob(value):
        shape = b"".join(varint_field(1, side) for side in value.shape)
        shape_field = bytes([7 << 3 | 2]) + _varint(len(shape)) + shape
        return field(5, value.astype(np.float32).tobytes()) + shape_field

    kernel, bias, _ = arrays.values()
    layer = field(1, b"conv1_1") + field(2, b"Convolution")
    layer += field(7, blob(kernel)) + field(7, blob(bias))
    return field(1, b"net") + bytes([0xA2, 0x06]) + _varint(len(layer)) + layer


def _varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def keras_files(folder):
    from tests.export.models import small_model

    path = folder / "m.keras"
    small_model(SSD64).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])

    def case(rng):
        changed = dict(members)
        if rng.integers(2):
            changed["config.json"] = damage_json(rng, config)
        else:
            name = list(members)[rng.integers(len(members))]
            changed[name] = damage_bytes(rng, members[name], head=4000)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in changed.items():
                archive.writestr(name, content)
        if rng.integers(10) == 0:
            path.write_bytes(damage_bytes(rng, path.read_bytes()))
        load_model(path)

    return case, ("m.keras",)


def flags(folder):
    """Unusual values of the flags of `prepare`, in this process."""
    write_voc(folder / "voc", {"a": voc_xml([("cat", 1, 2, 30, 15)])})
    write(folder / "labels.txt", "cat\ndog\n")
    valid = {
        "source": "voc",
        "path": str(folder / "voc"),
        "splits": "train",
        "labels": str(folder / "labels.txt"),
        "shards": "2",
        "max_pixels": "5000",
        "out": "",
        "check": "",
        "name": "",
        "num_images": "1500",
        "seed": "0",
    }
    number = iter(range(10**9))

    def case(rng):
        given = {name: valid[name] for name in ("source", "path", "splits", "shards")}
        given["out"] = str(folder / f"out{next(number)}")
        for _ in range(rng.integers(1, 3)):
            name = list(valid)[rng.integers(len(valid))]
            odd = str(ODD_VALUES[rng.integers(len(ODD_VALUES))])
            safe = name not in ("out", "num_images") and given.get("source") != "shapes"
            if safe and "\x00" not in odd:
                given[name] = odd if rng.random() < 0.7 else valid[name]
        if given.get("shards", "2").isdecimal() and int(given["shards"]) > 100:
            given["shards"] = "3"
        errors = io.StringIO()
        with (
            contextlib.redirect_stderr(errors),
            contextlib.redirect_stdout(io.StringIO()),
            loaded_command("prepare") as module,
        ):
            try:
                code = in_process(module, *(f"--{k}={v}" for k, v in given.items()))
            except absl_flags.Error:
                return
        text = errors.getvalue()
        assert code in (0, 1), code
        assert code == 0 or text.startswith("error: "), text
        assert "Traceback" not in text

    return case, ()


TORCH = (".pth", ".pt") if importlib.util.find_spec("torch") else ()
TARGETS = {
    "pictures": pictures,
    "voc": voc,
    "coco": coco,
    "yolo": yolo,
    "labels": label_files,
    "cards": cards,
    "records": records,
    "histories": histories,
    "saved_models": saved_models,
    **{
        f"weights{extension}": functools.partial(weights, extension=extension)
        for extension in (".npz", ".safetensors", ".caffemodel", ".h5", ".keras", *TORCH)
    },
    "keras": keras_files,
    "flags": flags,
}
