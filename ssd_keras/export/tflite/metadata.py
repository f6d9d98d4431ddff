"""Adds labels, description and TFLite Model Metadata to a TFLite file.

Labels and description are files in a zip archive at the end of the TFLite file, as the metadata
specification requires: `zipfile.ZipFile("detector.tflite").read("labels.txt")`. MediaPipe Tasks
read the metadata, which is written with flatbuffers.

Source: `metadata_schema.fbs` of TFLite Support. The keys of the dictionaries below are the field
numbers of this schema.
"""

import io
import json
import zipfile
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ssd_keras.export.descriptions import DESCRIPTION, LABELS
from ssd_keras.export.tflite.graphs import MEDIAPIPE

# The order in which MediaPipe expects the outputs.
_MEDIAPIPE_OUTPUTS = ("location", "category", "score", "count")

_UINT8, _INT32 = np.uint8, np.int32
_IMAGE, _FEATURE, _BOXES = _UINT8(2), _UINT8(1), _UINT8(3)  # union ContentProperties
_NORMALIZATION = _UINT8(1)  # union ProcessUnitOptions
# enums ColorSpaceType, BoundingBoxType and AssociatedFileType
_RGB, _BOUNDARIES, _VALUE_LABELS = _UINT8(1), _UINT8(1), _UINT8(3)


def add_metadata(content: bytes, kind: str, description: dict[str, Any]) -> bytes:
    """Adds labels and description to a TFLite file, and metadata if the kind is "mediapipe".

    Args:
        content: The converted file.
        kind: One of `graphs.KINDS`.
        description: The content of `detector.json`. Its `labels` are also written to `labels.txt`.

    Returns:
        The complete file.
    """
    if kind == MEDIAPIPE:
        content = _with_mediapipe_metadata(content)
    archive = io.BytesIO(content)
    with zipfile.ZipFile(archive, "a") as files:
        for name, text in (
            (LABELS, "".join(f"{label}\n" for label in description["labels"])),
            (DESCRIPTION, json.dumps(description, indent=1)),
        ):
            # ZipInfo has a fixed date, so that equal exports have equal bytes.
            files.writestr(zipfile.ZipInfo(name), text)
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
    """Returns the ModelMetadata of an SSD: unscaled pixels, `yxyx` boxes, labels in a file."""
    image: dict[int, Any] = {0: "image", 3: {0: _IMAGE, 1: {0: _RGB}}}
    if is_float:
        # Mean 0 and standard deviation 1: the graph itself normalizes the image.
        identity = {0: np.zeros(1, np.float32), 1: np.ones(1, np.float32)}
        image[4] = [{0: _NORMALIZATION, 1: identity}]
    # Columns of xmin, ymin, xmax and ymax in `location`.
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
    """Writes a string, an array, a list or a table {field number: value}; returns its offset."""
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
