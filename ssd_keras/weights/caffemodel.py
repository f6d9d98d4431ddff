"""Reads the weights of a `.caffemodel` file.

The module defines the necessary part of `caffe.proto`, so neither Caffe nor generated code is
needed.
"""

import math

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto

# (field, number, type, repeated) of each message. A type in capitals is a protobuf scalar.
# `data` is a packed list of floats, which has the same wire format as bytes. It is declared as
# bytes, because a list would need one Python object for each of 35 million numbers.
# Layers and blobs are also declared as bytes, so that they are counted before they are parsed: a
# parsed message takes many times the memory of its bytes.
_MESSAGES = {
    "BlobShape": [("dim", 1, "INT64", True)],
    "BlobProto": [
        ("num", 1, "INT32", False),
        ("channels", 2, "INT32", False),
        ("height", 3, "INT32", False),
        ("width", 4, "INT32", False),
        ("data", 5, "BYTES", False),
        ("shape", 7, "BlobShape", False),
    ],
    "PriorBoxParameter": [
        ("min_size", 1, "FLOAT", True),
        ("max_size", 2, "FLOAT", True),
        ("aspect_ratio", 3, "FLOAT", True),
        ("flip", 4, "BOOL", False),
        ("clip", 5, "BOOL", False),
        ("variance", 6, "FLOAT", True),
        ("img_size", 7, "UINT32", False),
        ("img_h", 8, "UINT32", False),
        ("img_w", 9, "UINT32", False),
        ("step", 10, "FLOAT", False),
        ("step_h", 11, "FLOAT", False),
        ("step_w", 12, "FLOAT", False),
        ("offset", 13, "FLOAT", False),
    ],
    "LayerParameter": [
        ("name", 1, "BYTES", False),
        ("blobs", 7, "BYTES", True),
        ("prior_box_param", 203, "PriorBoxParameter", False),
    ],
    "V1LayerParameter": [("name", 4, "BYTES", False), ("blobs", 6, "BYTES", True)],
    "NetParameter": [
        ("layer", 100, "BYTES", True),
        ("layers", 2, "BYTES", True),
    ],
}
_MAX_LAYERS = 10_000
_MAX_BLOBS = 16  # per layer


def _message_classes() -> dict[str, type[message.Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name="ssd_keras/caffe.proto", package="ssd_keras.caffe", syntax="proto2"
    )
    for message_name, fields in _MESSAGES.items():
        message_type = file.message_type.add(name=message_name)
        for name, number, type_name, repeated in fields:
            field = message_type.field.add(name=name, number=number)
            field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if type_name in _MESSAGES:
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".ssd_keras.caffe.{type_name}"
            else:
                field.type = getattr(_FIELD, f"TYPE_{type_name}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ssd_keras.caffe.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _message_classes()


def caffemodel_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Parses the weights and the PriorBox parameters of a network.

    Args:
        data: Content of a `.caffemodel` file.

    Returns:
        float32 arrays by name. "<layer>/<i>" is blob i of a layer, a read-only view of the parsed
        bytes. "<layer>/min_size", "<layer>/clip" and so on are the fields of `PriorBoxParameter`
        that a PriorBox layer sets, float32 [n]; sizes and steps are in pixels.

    Raises:
        ValueError: If the size of a blob does not match its shape, or if the number of layers or
            blobs is above the limit.
        google.protobuf.message.DecodeError: If `data` is not a protobuf message.

    Source: `caffe.proto` of the original code.
    """
    net = _CLASSES["NetParameter"].FromString(data)
    if (count := len(net.layer) + len(net.layers)) > _MAX_LAYERS:
        raise ValueError(f"the file has {count} layers, above the limit of {_MAX_LAYERS}")
    arrays: dict[str, np.ndarray] = {}
    for kind, layers in (("LayerParameter", net.layer), ("V1LayerParameter", net.layers)):
        for encoded in layers:
            arrays |= _layer_arrays(_CLASSES[kind].FromString(encoded))
    return arrays


def _layer_arrays(layer: message.Message) -> dict[str, np.ndarray]:
    name = layer.name.decode(errors="replace")
    if len(layer.blobs) > _MAX_BLOBS:
        raise ValueError(f"{name} has {len(layer.blobs)} blobs, above the limit of {_MAX_BLOBS}")
    arrays = {f"{name}/{i}": _array(f"{name}/{i}", blob) for i, blob in enumerate(layer.blobs)}
    if "prior_box_param" in layer.DESCRIPTOR.fields_by_name and layer.HasField("prior_box_param"):
        for field, values in layer.prior_box_param.ListFields():
            arrays[f"{name}/{field.name}"] = np.array(values, np.float32).reshape(-1)
    return arrays


def _array(name: str, encoded: bytes) -> np.ndarray:
    blob = _CLASSES["BlobProto"].FromString(encoded)
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:  # the older format always has four dimensions: a bias is [1, 1, 1, n]
        shape = (blob.num, blob.channels, blob.height, blob.width)
        shape = shape[3:] if shape[:3] == (1, 1, 1) else shape
    if min(shape, default=1) < 1 or math.prod(shape) * 4 != len(blob.data):
        raise ValueError(f"{name} has shape {shape} but {len(blob.data)} bytes of float32 data")
    return np.frombuffer(blob.data, "<f4").reshape(shape)
