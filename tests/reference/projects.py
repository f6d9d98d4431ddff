"""SSD as in other projects: OIHW kernels, (cx, cy, w, h) boxes, and their tensor names.

Each function names the code that it follows. This module does not use `ssd_keras`.
"""

import json
import math

import h5py
import ml_dtypes  # noqa: F401
import numpy as np
import tensorflow as tf

CFG = [64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512]
RATIOS = {
    300: [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    512: [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
}
STEPS = {300: [8, 16, 32, 64, 100, 300], 512: [8, 16, 32, 64, 128, 256, 512]}
GRIDS = {300: [38, 19, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2, 1]}
SIZES = {
    (300, "VOC"): [30, 60, 111, 162, 213, 264, 315],
    (300, "COCO"): [21, 45, 99, 153, 207, 261, 315],
    (512, "VOC"): [35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6],
    (512, "COCO"): [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72],
}


def sequential_places():
    """Indices of the convolutions in amdegroot's vgg() (ssd.py), a list with ReLU and pooling."""
    places, place = [], 0
    for entry in CFG:
        if entry in ("M", "C"):
            place += 1
        else:
            places.append(place)
            place += 2
    pool5 = place
    return [*places, pool5 + 1, pool5 + 3]


def layer_names(source, size):
    """Layer names of a project: VGG with fc6 and fc7, extra layers, offsets, logits, L2 scale."""
    places, maps = sequential_places(), 6 if size == 300 else 7
    extras = 2 * (maps - 2)
    heads = range(maps)
    if source == "torchvision":
        vgg = [f"backbone.features.{p}" for p in places[:10]]
        vgg += [f"backbone.extra.0.{p}" for p in ("1", "3", "5", "7.1", "7.3")]
        more = [f"backbone.extra.{1 + i // 2}.{2 * (i % 2)}" for i in range(extras)]
        loc = [f"head.regression_head.module_list.{i}" for i in heads]
        conf = [f"head.classification_head.module_list.{i}" for i in heads]
        return vgg, more, loc, conf, "backbone.scale_weight"
    if source == "amdegroot":
        return (
            [f"vgg.{p}" for p in places],
            [f"extras.{i}" for i in range(extras)],
            [f"loc.{i}" for i in heads],
            [f"conf.{i}" for i in heads],
            "L2Norm.weight",
        )
    if source == "lufficc":
        return (
            [f"backbone.vgg.{p}" for p in places],
            [f"backbone.extras.{i}" for i in range(extras)],
            [f"box_head.predictor.reg_headers.{i}" for i in heads],
            [f"box_head.predictor.cls_headers.{i}" for i in heads],
            "backbone.l2_norm.weight",
        )
    if source == "mmdetection":
        return (
            [f"backbone.features.{p}" for p in places],
            [f"neck.extra_layers.{i // 2}.{i % 2}.conv" for i in range(extras)],
            [f"bbox_head.reg_convs.{i}.0" for i in heads],
            [f"bbox_head.cls_convs.{i}.0" for i in heads],
            "neck.l2_norm.weight",
        )
    if source == "mmdetection_old":
        return (
            [f"backbone.features.{p}" for p in places],
            [f"backbone.extra.{i}" for i in range(extras)],
            [f"bbox_head.reg_convs.{i}" for i in heads],
            [f"bbox_head.cls_convs.{i}" for i in heads],
            "backbone.l2_norm.weight",
        )
    counts = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
    vgg = [f"conv{block}_{i}" for block, n in counts for i in range(1, n + 1)]
    if source == "chainercv":
        vgg += ["conv6", "conv7"]
        more = [f"conv{8 + i // 2}_{1 + i % 2}" for i in range(extras)]
        return (
            [f"extractor/{name}" for name in vgg],
            [f"extractor/{name}" for name in more],
            [f"multibox/loc/{i}" for i in heads],
            [f"multibox/conf/{i}" for i in heads],
            "extractor/norm4/scale",
        )
    if source == "oarriaga":  # SSD300.py, ssd_utils.py; Keras numbers layers without a name
        return (
            [*(f"conv2d_{i}" for i in range(1, 15)), "branch_2"],
            [n for i in range(4) for n in (f"conv2d_{15 + i}", f"branch_{3 + i}")],
            [f"regression_leaf_{i}" for i in heads],
            [f"classification_leaf_{i}" for i in heads],
            "branch_1",
        )
    if source == "balancap":  # ssd_vgg_300.py, ssd_vgg_512.py, custom_layers.py
        scope = f"ssd_{size}_vgg/"
        boxes = [f"{scope}block{b}_box/" for b in (4, 7, 8, 9, 10, 11, 12)[:maps]]
        more = [f"{scope}block{8 + i // 2}/conv{('1x1', '3x3')[i % 2]}" for i in range(extras)]
        if size == 512:
            more[-1] = f"{scope}block12/conv4x4"
        return (
            [f"{scope}{name[:5]}/{name}" for name in vgg] + [f"{scope}conv6", f"{scope}conv7"],
            more,
            [f"{box}conv_loc" for box in boxes],
            [f"{box}conv_cls" for box in boxes],
            f"{scope}block4_box/L2Normalization/gamma",
        )
    more = [f"conv{6 + i // 2}_{1 + i % 2}" for i in range(extras)]  # caffe, pierluigi
    sources = ["conv4_3_norm", "fc7", *more[1::2]]
    return (
        [*vgg, "fc6", "fc7"],
        more,
        [f"{name}_mbox_loc" for name in sources],
        [f"{name}_mbox_conf" for name in sources],
        "conv4_3_norm",
    )


def conv(x, kernel, bias, stride=1, padding=0, dilation=1):
    """torch.nn.Conv2d with an OIHW kernel, except that the channels of `x` are last."""
    x = tf.pad(x, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    x = tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), stride, "VALID", dilations=dilation)
    return x + bias


def forward(layers, scale, images, size, outputs):
    """The network: amdegroot's SSD.forward, and lufficc's add_extras for 512 pixels.

    `layers` are (kernel OIHW, bias) in the order of `layer_names`. Returns loc [B, P, 4] and conf
    [B, P, outputs] in the project's coding.
    """
    vgg, extras, loc_heads, conf_heads = layers
    x, i = images, 0
    for entry in CFG:
        if entry == "M":
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        elif entry == "C":  # ceil_mode
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        else:
            x = tf.nn.relu(conv(x, *vgg[i], padding=1))
            i += 1
            if i == 10:
                norm = x / (tf.sqrt(tf.reduce_sum(x**2, -1, keepdims=True)) + 1e-10) * scale
    x = tf.nn.max_pool2d(x, 3, 1, "SAME")
    x = tf.nn.relu(conv(x, *vgg[13], padding=6, dilation=6))
    x = tf.nn.relu(conv(x, *vgg[14]))
    maps = [norm, x]
    strided = {300: [1, 3], 512: [1, 3, 5, 7]}[size]
    for k, layer in enumerate(extras):
        stride, padding = (2, 1) if k in strided else (1, 0)
        if size == 512 and k == 9:
            padding = 1
        x = tf.nn.relu(conv(x, *layer, stride=stride, padding=padding))
        if k % 2:
            maps.append(x)
    loc = [conv(m, *h, padding=1) for m, h in zip(maps, loc_heads, strict=True)]
    conf = [conv(m, *h, padding=1) for m, h in zip(maps, conf_heads, strict=True)]
    batch = len(images)
    return (
        np.concatenate([np.reshape(v, (batch, -1, 4)) for v in loc], axis=1),
        np.concatenate([np.reshape(v, (batch, -1, outputs)) for v in conf], axis=1),
    )


def default_boxes(size, tiling, integer, clamp):
    """amdegroot's PriorBox: default boxes as (cx, cy, w, h).

    `clamp` is "sizes" as in torchvision, or "all" as in amdegroot and lufficc, which also move
    centers.
    """
    sizes = [int(s) if integer else s for s in SIZES[size, tiling]]
    boxes = []
    for k, grid in enumerate(GRIDS[size]):
        for i in range(grid):
            for j in range(grid):
                cx, cy = (j + 0.5) * STEPS[size][k] / size, (i + 0.5) * STEPS[size][k] / size
                s, s2 = sizes[k] / size, math.sqrt(sizes[k] * sizes[k + 1]) / size
                boxes += [(cx, cy, s, s), (cx, cy, s2, s2)]
                for ratio in RATIOS[size][k]:
                    r = math.sqrt(ratio)
                    boxes += [(cx, cy, s * r, s / r), (cx, cy, s / r, s * r)]
    limits = {"sizes": (np.inf, np.inf, 1, 1), "all": (1, 1, 1, 1)}
    return np.minimum(boxes, limits[clamp]) if clamp else np.array(boxes)


def decode(loc, defaults):
    """amdegroot's decode (box_utils.py), to (ymin, xmin, ymax, xmax)."""
    cx, cy = (defaults[:, i] + loc[..., i] * 0.1 * defaults[:, 2 + i] for i in range(2))
    w, h = (defaults[:, 2 + i] * np.exp(loc[..., 2 + i] * 0.2) for i in range(2))
    return np.stack([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2], axis=-1)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def safetensors(tensors):
    """Content of a safetensors file."""
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {
            "dtype": names[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        data += array.tobytes()
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


def varint(n):
    """A protobuf varint."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def field(number, payload):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def float_field(number, value):
    """A protobuf field of one float."""
    return varint(number << 3 | 5) + np.float32(value).tobytes()


def prior_box(
    low, high, ratios, step, clip=False, variance=(0.1, 0.1, 0.2, 0.2), offset=0.5, img_size=None
):
    """A PriorBoxParameter as Caffe writes it for ssd_pascal.py."""
    repeated = [(1, low), (2, high), *((3, r) for r in ratios), *((6, v) for v in variance)]
    floats = b"".join(float_field(n, v) for n, v in repeated if v is not None)
    flags = varint(4 << 3) + varint(1) + varint(5 << 3) + varint(int(clip))
    size = b"" if img_size is None else varint(7 << 3) + varint(img_size)
    return floats + flags + size + float_field(10, step) + float_field(13, offset)


def blob(array, old):
    """A BlobProto: shape and packed data; `old` has four dimensions, as before 2015."""
    data = field(5, array.astype("<f4").tobytes())
    if not old:
        return field(7, field(1, b"".join(varint(n) for n in array.shape))) + data
    dims = (1,) * (4 - array.ndim) + array.shape
    return b"".join(varint(i << 3) + varint(n) for i, n in enumerate(dims, start=1)) + data


def caffemodel(layers, priors=(), old=False):
    """Content of a .caffemodel from [(name, [arrays])] and [(name, PriorBoxParameter)].

    `old` selects V1LayerParameter and blobs of four dimensions.
    """
    number, name_number, blobs_number = (2, 4, 6) if old else (100, 1, 7)
    data = field(1, b"VGG_VOC0712_SSD_300x300_train")
    for name, arrays in layers:
        layer = field(name_number, name.encode()) + (b"" if old else field(2, b"Convolution"))
        layer += b"".join(field(blobs_number, blob(a, old)) for a in arrays)
        data += field(number, layer)
    for name, parameter in priors:
        data += field(100, field(1, name.encode()) + field(2, b"PriorBox") + field(203, parameter))
    return data


def tf1_checkpoint(prefix, arrays):
    """Writes a checkpoint as tf.train.Saver does."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tf.constant(array) for array in arrays.values()],
    )


def slim_arrays(layers, scale_name, scale):
    """Variables of TF-Slim: HWIO weights, and biases."""
    arrays = {scale_name: scale}
    for name, (kernel, bias) in layers:
        arrays[f"{name}/weights"], arrays[f"{name}/biases"] = kernel.transpose(2, 3, 1, 0), bias
    return arrays


def keras2_h5(path, layers, scale, scale_name):
    """Writes a .h5 file as pierluigiferrari's: HWIO kernels at f[name][name]["kernel:0"]."""
    with h5py.File(path, "w") as f:
        f.attrs["layer_names"] = [name.encode() for name, _ in layers]
        for name, (kernel, bias) in layers:
            f[f"{name}/{name}/kernel:0"] = kernel.transpose(2, 3, 1, 0)
            f[f"{name}/{name}/bias:0"] = bias
        f[f"{scale_name}/{scale_name}_gamma:0"] = scale
