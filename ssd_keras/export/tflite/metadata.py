"""TFLite Model Metadata: what MediaPipe Tasks read, written with flatbuffers.

The labels and a description travel as a zip archive at the end of the file, as the metadata's
specification has it: `zipfile.ZipFile("detector.tflite").read("labels.txt")`.

Source: `metadata_schema.fbs` of TFLite Support; the numbers below are its field numbers.
"""

import io
import json
import zipfile
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ssd_keras.export.tflite.graphs import MEDIAPIPE

LABELS, DESCRIPTION = "labels.txt", "detector.json"

# In this order MediaPipe takes the outputs.
_MEDIAPIPE_OUTPUTS = ("location", "category", "score", "count")

_UINT8, _INT32 = np.uint8, np.int32
_IMAGE, _FEATURE, _BOXES = _UINT8(2), _UINT8(1), _UINT8(3)  # union ContentProperties
_NORMALIZATION = _UINT8(1)  # union ProcessUnitOptions
_RGB, _BOUNDARIES, _VALUE_LABELS = _UINT8(1), _UINT8(1), _UINT8(3)


def add_metadata(content: bytes, kind: str, description: dict[str, Any]) -> bytes:
    """Adds labels and description to a TFLite file, and metadata for MediaPipe to that kind.

    Args:
        content: The converted file.
        kind: Of `tflite_graphs.KINDS`.
        description: For `detector.json`; its `labels` go into `labels.txt` too.
    """
    if kind == MEDIAPIPE:
        content = _with_mediapipe_metadata(content)
    archive = io.BytesIO(content)
    with zipfile.ZipFile(archive, "a") as files:
        for name, text in (
            (LABELS, "".join(f"{label}\n" for label in description["labels"])),
            (DESCRIPTION, json.dumps(description, indent=1)),
        ):
            files.writestr(zipfile.ZipInfo(name), text)  # ZipInfo: no time of writing
    return archive.getvalue()


def _with_mediapipe_metadata(content: bytes) -> bytes:
    file = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    graph = file.subgraphs[0]
    by_name = {o.name.decode(): o.tensorIndex for o in file.signatureDefs[0].outputs}
    graph.outputs = np.array([by_name[name] for name in _MEDIAPIPE_OUTPUTS], np.int32)
    is_float = graph.tensors[graph.inputs[0]].type == schema.TensorType.FLOAT32
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_metadata(is_float), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(file.buffers)
    file.buffers.append(buffer)
    file.metadata = [*(file.metadata or []), entry]
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _metadata(is_float: bool) -> bytes:
    """ModelMetadata of an SSD: pixels 0..255 as they are, boxes `yxyx`, labels in a file."""
    image: dict[int, Any] = {0: "image", 3: {0: _IMAGE, 1: {0: _RGB}}}
    if is_float:
        identity = {0: np.zeros(1, np.float32), 1: np.ones(1, np.float32)}  # mean and deviation
        image[4] = [{0: _NORMALIZATION, 1: identity}]
    # Where xmin, ymin, xmax and ymax stand in a row of `location`.
    corners = {0: np.array([1, 0, 3, 2], np.uint32), 1: _BOUNDARIES}
    feature, per_box = {0: _FEATURE, 1: {}}, {0: _INT32(2), 1: _INT32(2)}
    labels = {0: LABELS, 1: "Class names, without background.", 2: _VALUE_LABELS}
    outputs = [
        {0: "location", 3: {0: _BOXES, 1: corners, 2: per_box}},
        {0: "category", 3: {**feature, 2: per_box}, 6: [labels]},
        {0: "score", 3: {**feature, 2: per_box}},
        {0: "number of detections", 3: feature},
    ]
    group = {0: "detection_result", 1: ["location", "category", "score"]}
    graph = {2: [image], 3: outputs, 8: [group]}
    builder = flatbuffers.Builder()
    model = {0: "SSD", 1: "Single Shot MultiBox Detector", 3: [graph], 7: "1.2.0"}
    builder.Finish(_write(builder, model), b"M001")
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, value: Any) -> int:
    """Writes a string, a vector of numbers, a list or a table {field number: value}."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    if isinstance(value, list):
        offsets = [_write(builder, item) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    scalars = {k: v for k, v in value.items() if isinstance(v, np.integer)}
    parts = {k: _write(builder, v) for k, v in value.items() if k not in scalars}
    builder.StartObject(max(value, default=-1) + 1)
    for field, offset in parts.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, scalar in scalars.items():
        if isinstance(scalar, _UINT8):
            builder.PrependUint8Slot(field, int(scalar), 0)
        else:
            builder.PrependInt32Slot(field, int(scalar), 0)
    return int(builder.EndObject())
