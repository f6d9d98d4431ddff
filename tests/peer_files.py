"""Writes weights files of a narrow model in the formats of other projects."""

import numpy as np

from ssd_keras.model import ssd_vgg16
from ssd_keras.vgg16 import CONVOLUTIONS
from tests.reference import projects

WIDTH = 1 / 8


def narrow(config, num_classes, labels=None):
    return ssd_vgg16(config, num_classes, width=WIDTH, labels=labels)


def random_layers(model, size, outputs, seed=0):
    """Returns random weights: (kernel OIHW, bias) of every layer in four groups, and the scale.

    The groups and their order are those of `projects.layer_names`: VGG16 with fc6 and fc7, extra
    layers, offsets, logits. The scale is that of conv4_3_norm.
    """
    rng = np.random.default_rng(seed)
    maps = [m.name for m in model.ssd_config.feature_maps]
    extras = [f"{name[:-1]}{i}" for name in maps[2:] for i in (1, 2)]
    groups = []
    for names, outs in (
        ([*CONVOLUTIONS, "fc6", "fc7"], None),
        (extras, None),
        ([f"{m}_offsets" for m in maps], 4),
        ([f"{m}_logits" for m in maps], outputs),
    ):
        group = []
        for i, name in enumerate(names):
            height, width, channels, filters = model.get_layer(name).kernel.shape
            if outs:
                filters = (2 + 2 * len(projects.RATIOS[size][i])) * outs
            std = (2 / (height * width * channels)) ** 0.5 / (50 if name == "conv1_1" else 1)
            kernel = rng.normal(0, std, (filters, channels, height, width))
            bias = rng.normal(0, 0.3, filters)
            group.append((kernel.astype(np.float32), bias.astype(np.float32)))
        groups.append(group)
    return groups, rng.uniform(5, 30, model.get_layer("conv4_3_norm").scale.shape[0]).astype("f")


def write_file(tmp_path, source, size, tiling, groups, scale, old=False, **prior):
    """Writes the file that the code of a project would write, and returns its path.

    Args:
        tmp_path: Folder to write to.
        source: Name of the project.
        size: Input size, 300 or 512.
        tiling: "VOC" or "COCO".
        groups: From `random_layers`.
        scale: From `random_layers`.
        old: Whether to use the old format of a caffemodel, without PriorBox layers.
        **prior: Parameters of all PriorBox layers of a caffemodel that differ from the tiling's.
    """
    *names, scale_name = projects.layer_names(source, size)
    layers = [
        pair
        for ns, group in zip(names, groups, strict=True)
        for pair in zip(ns, group, strict=True)
    ]
    if source == "caffe":
        path = tmp_path / "net.caffemodel"
        sizes = projects.SIZES[size, tiling]
        heads = [name.replace("_loc", "_priorbox") for name in names[2]]
        rows = zip(
            heads, sizes, sizes[1:], projects.RATIOS[size], projects.STEPS[size], strict=False
        )
        keys = ("low", "high", "ratios", "step")
        boxes = [(h, {**dict(zip(keys, row, strict=True)), **prior}) for h, *row in rows]
        prior_layers = [] if old else [(h, projects.prior_box(**values)) for h, values in boxes]
        blobs = [(name, list(pair)) for name, pair in layers] + [(scale_name, [scale])]
        path.write_bytes(projects.caffemodel(blobs, prior_layers, old))
    elif source in ("pierluigi", "oarriaga"):
        path = tmp_path / "net.h5"
        projects.keras2_h5(path, layers, scale, scale_name)
    elif source == "balancap":
        path = tmp_path / "net.ckpt"
        projects.tf1_checkpoint(path, projects.slim_arrays(layers, scale_name, scale))
    elif source == "chainercv":
        path = tmp_path / "net.npz"
        tensors = {f"{n}/{v}": a for n, pair in layers for v, a in zip("Wb", pair, strict=True)}
        np.savez(path, **{scale_name: scale}, **tensors)
    else:
        path = tmp_path / "net.safetensors"
        suffixes = ("weight", "bias")
        tensors = {f"{n}.{v}": a for n, pair in layers for v, a in zip(suffixes, pair, strict=True)}
        path.write_bytes(projects.safetensors({**tensors, scale_name: scale}))
    return path
