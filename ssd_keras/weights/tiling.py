"""The tiling of default boxes that the heads in a weights file were trained with."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping

import numpy as np

from ssd_keras.config import CONFIGS, MAP_NAMES, SSDConfig
from ssd_keras.weights.conversion import Arrays
from ssd_keras.weights.naming import Project

_MAX_CONFIG_BYTES = 1 << 24  # of a .keras file's config.json; that of SSD512 has 30 kB


def own_contents(path: str | os.PathLike[str]) -> tuple[SSDConfig, tuple[str, ...] | None]:
    """Config and class names of a `.keras` file of `ssd_vgg16`; nothing in it is run.

    Raises:
        ValueError: If the file does not tell them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := archive.getinfo("config.json").file_size) > _MAX_CONFIG_BYTES:
                raise ValueError(f"its config.json would take {size} bytes")
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        (saved,) = (layer["config"] for layer in layers if layer["name"] == "predictions")
        labels = saved["labels"]
        if labels is not None and not all(isinstance(label, str) for label in labels):
            raise ValueError(f"its labels (={labels}) must be names")
        return SSDConfig.from_dict(saved["ssd_config"]), None if labels is None else tuple(labels)
    except Exception as error:  # JSON of strangers fails in as many ways as there are
        raise ValueError(
            "named like this package's models, it must be a .keras file of one "
            f"({error or type(error).__name__}); for other files give weights_config and "
            "weights_labels"
        ) from error


def file_config(
    project: Project,
    tensors: Mapping[str, np.ndarray],
    arrays: Arrays,
    weights_config: SSDConfig | None,
) -> tuple[SSDConfig, str]:
    """The config that a file's heads were trained with.

    Args:
        project: Whose weights.
        tensors: Arrays of the file.
        arrays: The same, converted.
        weights_config: What the user says it is.

    Returns:
        `weights_config` or a released config, sizes truncated or not as the project does, and a
        sentence on how it is known, for the report.

    Raises:
        ValueError: If it cannot be known, or the file says otherwise.
    """
    size = 512 if f"{MAP_NAMES[-1]}_offsets/kernel" in arrays else 300
    known = {name: config for name, config in CONFIGS.items() if config.image_size == size}
    if weights_config is not None:
        known = {"weights_config": weights_config}
    if any("_mbox_priorbox/" in name for name in tensors):
        differing = {name: _differences(tensors, config) for name, config in known.items()}
        name = min(differing, key=lambda name: len(differing[name]))
        if differences := differing[name]:
            raise ValueError(
                f"its default boxes are not those of {' or '.join(known)}: {differences[0]} in "
                f"{name}; {len(differences)} such values differ: give the SSDConfig that has them "
                "as weights_config, and build the model with it"
            )
        how = "as its PriorBox layers say"
    elif weights_config is not None:
        name, how = "weights_config", "as told"
    else:
        outputs, tilings = num_outputs(arrays), dict(project.tilings)
        if outputs not in tilings and None not in tilings:
            raise ValueError(
                f"{project.name} weights of {outputs} outputs may have any tiling: give the config "
                "that they were trained with as weights_config"
            )
        kind = tilings.get(outputs) or tilings[None]
        name = f"SSD{size}_{kind}"
        others = "models fine-tuned from COCO need" if kind == "VOC" else "others need"
        how = f"assumed from {outputs} outputs; {others} weights_config"
        how += f"=SSD{size}_COCO" if kind == "VOC" else ""
    config = dataclasses.replace(known[name], integer_sizes=project.integer_sizes)
    return config, f"tiling: {name}, {how}"


def _differences(tensors: Mapping[str, np.ndarray], config: SSDConfig) -> list[str]:
    """What the PriorBox layers of a `.caffemodel` say otherwise than a config."""
    layers = dict.fromkeys(n.rpartition("/")[0] for n in tensors if "_mbox_priorbox/" in n)
    if len(layers) != len(config.feature_maps):
        return [f"{len(layers)} PriorBox layers, but {len(config.feature_maps)} maps"]
    found = []
    for layer, feature_map in zip(layers, config.feature_maps, strict=True):
        cy, cx, h, w = config.variances
        # What a layer does not say is Caffe's default (prior_box_layer.cpp).
        step = config.image_size / feature_map.size
        steps = [name for name in ("step", "step_h", "step_w") if f"{layer}/{name}" in tensors]
        size = float(config.image_size)
        expected: dict[str, tuple[list[float], list[float]]] = {
            "min_size": ([feature_map.min_size], []),
            "max_size": ([m for m in (feature_map.max_size,) if m is not None], []),
            "aspect_ratio": ([*feature_map.aspect_ratios], []),
            "flip": ([1], [1]),
            "clip": ([config.clip], [0]),
            "variance": ([cx, cy, w, h], [0.1] * 4),
            **{name: ([feature_map.step], [step]) for name in steps or ["step"]},
            "offset": ([0.5], [0.5]),
            **{name: ([size], [size]) for name in ("img_size", "img_h", "img_w")},
        }
        for name, (ours, default) in expected.items():
            theirs = np.asarray(tensors.get(f"{layer}/{name}", default), np.float32)
            if theirs.shape != np.shape(ours) or not np.allclose(theirs, ours):
                found.append(f"{layer} has {name} {[round(v, 4) for v in theirs.tolist()]}, {ours}")
    return found


def check_tiling(config: SSDConfig, weights_config: SSDConfig) -> None:
    """Refuses a model whose default boxes are not those of the file.

    Args:
        config: The model's.
        weights_config: The file's.

    Raises:
        ValueError: If centres, sizes, aspect ratios or clipping differ, but for the truncation of
            sizes.
    """
    if config.clip != weights_config.clip:
        raise ValueError(
            f"its default boxes have clip (={weights_config.clip}), but the model's config has "
            f"clip (={config.clip}): build the model with the same value"
        )
    maps, file_maps = config.feature_maps, weights_config.feature_maps
    if (config.image_size, maps) == (weights_config.image_size, file_maps):
        return
    fits = [name for name, c in CONFIGS.items() if c.feature_maps == file_maps]
    own = [name for name, c in CONFIGS.items() if c.feature_maps == maps]
    raise ValueError(
        f"its tiling is that of {' '.join(fits) or 'weights_config'}, but the model has that of "
        f"{' '.join(own) or 'another config'}: build the model with "
        f"{' '.join(fits) or 'that config'}, or, if the file was trained with another tiling than "
        "its number of classes suggests, give that as weights_config"
    )


def num_outputs(arrays: Arrays) -> int:
    """Outputs of a file for each default box, background included.

    Raises:
        ValueError: If the heads do not agree on it.
    """
    outputs = {
        array.shape[-1] / (arrays[f"{name}_offsets/bias"].size / 4)
        for name in MAP_NAMES
        for variable in ("kernel", "bias")
        if (array := arrays.get(f"{name}_logits/{variable}")) is not None
    }
    if len(outputs) != 1 or not (n := outputs.pop()).is_integer() or n < 2:
        raise ValueError("the sizes of its heads do not agree on a number of classes")
    return int(n)
