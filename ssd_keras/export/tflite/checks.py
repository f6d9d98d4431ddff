"""Checks the structure of a converted TFLite file.

TensorFlow's converter reports success even for files that do not work. Each check here detects a
failure that has occurred: uninitialized variables, a dilated convolution that is split into several
operators, operators that are not available on phones, scores in 8 bits, missing weights, or weights
of a larger type than requested.
"""

import collections

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ssd_keras.export.tflite.graphs import DETECTIONS, MEDIAPIPE, RAW

_NETWORK = {
    "ADD", "CONCATENATION", "CONV_2D", "DEQUANTIZE", "EXP", "L2_NORMALIZATION", "MAX_POOL_2D",
    "MUL", "PACK", "PAD", "QUANTIZE", "RESHAPE", "REVERSE_V2", "SOFTMAX", "STRIDED_SLICE", "SUB",
    "UNPACK",
}  # fmt: skip
_SUPPRESSION = {
    "CAST", "FLOOR_DIV", "GATHER", "GREATER", "LESS", "MAXIMUM", "MINIMUM", "RELU", "SELECT_V2",
    "NON_MAX_SUPPRESSION_V4", "SUM", "TOPK_V2",
}  # fmt: skip
OPERATORS = {
    RAW: _NETWORK,
    DETECTIONS: _NETWORK | _SUPPRESSION,
    MEDIAPIPE: _NETWORK | _SUPPRESSION,
}

BYTES_PER_WEIGHT = {"float32": 4, "float16": 2, "dynamic": 1, "int8": 1}
# Allowed size of a file in addition to its weights: a fraction of the weights, a constant for the
# graph, and bytes for the coordinates of each default box.
_EXTRA_SHARE, _EXTRA_BYTES, _EXTRA_BYTES_PER_BOX = 0.1, 200_000, 24

_BUILTIN_NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
_CONV_2D, _SOFTMAX = schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.SOFTMAX


def check_structure(content: bytes, model: keras.Model, kind: str, precision: str) -> None:
    """Checks the operators, shapes, types and size of a TFLite file.

    Args:
        content: The converted file.
        model: The Keras model that was converted.
        kind: One of `graphs.KINDS`.
        precision: A key of `BYTES_PER_WEIGHT`.

    Raises:
        RuntimeError: If the file has operators that its kind must not have, lacks an operator of
            the network, has an input or output of variable shape, a softmax in 8 bits or a uint8
            input with another scale than 1, or has too few or too many bytes for its weights.
    """
    file = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    graph = file.subgraphs[0]
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in file.operatorCodes]
    found = collections.Counter(_BUILTIN_NAMES[codes[o.opcodeIndex]] for o in graph.operators)

    unknown = sorted(set(found) - OPERATORS[kind])
    if unknown:
        raise RuntimeError(
            f"the TFLite file has operators that kind {kind!r} must not have: {unknown}"
        )
    _check_count("L2_NORMALIZATION", found["L2_NORMALIZATION"], 1)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    _check_count("CONV_2D", found["CONV_2D"], len(convolutions))
    dilated = [
        o
        for o in graph.operators
        if codes[o.opcodeIndex] == _CONV_2D and o.builtinOptions.dilationHFactor > 1
    ]
    _check_count("dilated CONV_2D", len(dilated), 1)
    for operator in graph.operators:
        output = graph.tensors[operator.outputs[0]]
        if codes[operator.opcodeIndex] == _SOFTMAX and output.type != schema.TensorType.FLOAT32:
            raise RuntimeError("the TFLite file has a softmax in 8 bits: small scores would be 0")
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[index]
        if tensor.shapeSignature is not None and np.any(tensor.shapeSignature < 1):
            raise RuntimeError(f"tensor {tensor.name!r} of the TFLite file has a variable shape")
    image = graph.tensors[graph.inputs[0]]
    if image.type == schema.TensorType.UINT8:
        scale, zero = image.quantization.scale.tolist(), image.quantization.zeroPoint.tolist()
        readers = [codes[o.opcodeIndex] for o in graph.operators if graph.inputs[0] in o.inputs]
        if (scale, zero, readers) != ([1.0], [0], [schema.BuiltinOperator.DEQUANTIZE]):
            raise RuntimeError(
                "the input of the TFLite file must have scale [1.0] and zero point [0] and be read "
                f"by one DEQUANTIZE, but has scale {scale}, zero point {zero} and {len(readers)} "
                "readers"
            )

    weights = BYTES_PER_WEIGHT[precision] * model.count_params()
    extra = weights * _EXTRA_SHARE + _EXTRA_BYTES + model.output_shape[1] * _EXTRA_BYTES_PER_BOX
    if not weights <= len(content) <= weights + extra:
        raise RuntimeError(
            f"the TFLite file has {len(content)} bytes, but {model.count_params()} weights in "
            f"{precision} take {weights}: weights are missing or stored in another type"
        )


def _check_count(operator: str, found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"the TFLite file has {found} {operator}, but must have {expected}")
