"""Reading the weights of a `.caffemodel`, by the part of `caffe.proto` that holds them.

The definition is built here at run time, so that neither Caffe nor generated code is needed.
"""

import math

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto

# (field, number, type, repeated) of each message; a type in capitals is a protobuf scalar. `data`
# is a packed list of floats; declared as bytes, which is the same on the wire, it becomes an array
# without a Python object for each of 35 million numbers.
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
    "PriorBoxParameter": [("min_size", 1, "FLOAT", True), ("max_size", 2, "FLOAT", True)],
    "LayerParameter": [
        ("name", 1, "BYTES", False),
        ("blobs", 7, "BlobProto", True),
        ("prior_box_param", 203, "PriorBoxParameter", False),
    ],
    "V1LayerParameter": [("name", 4, "BYTES", False), ("blobs", 6, "BlobProto", True)],
    "NetParameter": [
        ("layer", 100, "LayerParameter", True),
        ("layers", 2, "V1LayerParameter", True),
    ],
}


def _net_parameter() -> type[message.Message]:
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
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("ssd_keras.caffe.NetParameter")
    )


NetParameter = _net_parameter()


def caffemodel_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The weights of a network.

    Args:
        data: A whole `.caffemodel`.

    Returns:
        float32 arrays by "<layer>/<index of the blob>", and the box sizes of SSD's PriorBox layers
        as "<layer>/min_size" and "<layer>/max_size", pixels. They are views of the parsed bytes.

    Raises:
        ValueError: If a blob does not hold as many numbers as its shape says.
        google.protobuf.message.DecodeError: If the bytes are not a protobuf message.

    Source: `caffe.proto` of the original's branch.
    """
    net = NetParameter.FromString(data)
    arrays = {}
    for layer in (*net.layer, *net.layers):
        layer_name = layer.name.decode(errors="replace")
        for i, blob in enumerate(layer.blobs):
            arrays[f"{layer_name}/{i}"] = _array(f"{layer_name}/{i}", blob)
    for layer in net.layer:
        if layer.HasField("prior_box_param"):
            layer_name = layer.name.decode(errors="replace")
            for size in ("min_size", "max_size"):
                values = getattr(layer.prior_box_param, size)
                arrays[f"{layer_name}/{size}"] = np.array(values, np.float32)
    return arrays


def _array(name: str, blob: message.Message) -> np.ndarray:
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:  # the older form always has four dimensions, a bias as [1, 1, 1, n]
        shape = (blob.num, blob.channels, blob.height, blob.width)
        shape = shape[3:] if shape[:3] == (1, 1, 1) else shape
    if min(shape, default=1) < 1 or math.prod(shape) * 4 != len(blob.data):
        raise ValueError(f"{name} has shape {shape} but {len(blob.data)} bytes of float32 data")
    return np.frombuffer(blob.data, "<f4").reshape(shape)
