"""The tiling of default boxes that a weights file was trained with."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from ssd_keras.config import CONFIGS, MAP_NAMES, SSDConfig
from ssd_keras.weights.formats import Arrays
from ssd_keras.weights.naming import EXTRA_LAYERS, Project

_MAX_CONFIG_BYTES = 1 << 24  # limit for config.json in a .keras file; that of SSD512 has 30 kB


class OwnContents(NamedTuple):
    """Values that a `.keras` file of `ssd_vgg16` holds besides its weights.

    Attributes:
        config: The config.
        labels: Class names without the background, or None.
        width: Factor for the number of filters.
    """

    config: SSDConfig
    labels: tuple[str, ...] | None
    width: float


def own_contents(path: str | os.PathLike[str]) -> OwnContents:
    """Reads config, class names and width from a `.keras` file, without running code.

    Args:
        path: The file.

    Returns:
        The values.

    Raises:
        ValueError: If the file is not a `.keras` file of `ssd_vgg16`, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := archive.getinfo("config.json").file_size) > _MAX_CONFIG_BYTES:
                raise ValueError(f"its config.json has {size} bytes, above {_MAX_CONFIG_BYTES}")
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        (saved,) = (layer["config"] for layer in layers if layer["name"] == "predictions")
        labels = saved["labels"]
        if labels is not None and not all(isinstance(label, str) for label in labels):
            raise ValueError(f"its labels (={labels}) must be strings")
        config = SSDConfig.from_dict(saved["ssd_config"])
        filters = next(e["config"]["filters"] for e in layers if e["name"] == "fc7")
        width = saved.get("width") or filters / (1024 if config.atrous else 4096)  # earlier files
        return OwnContents(config, None if labels is None else tuple(labels), float(width))
    except Exception as error:  # damaged JSON raises many kinds of exception
        raise ValueError(
            "its tensors have this package's names, but it is not a .keras file of ssd_vgg16 "
            f"({error or type(error).__name__}): use such a file, or give weights_config and "
            "weights_labels"
        ) from error


def find_contents(path: str | os.PathLike[str]) -> OwnContents | None:
    """Returns the result of `own_contents`, or None if that function refuses the file."""
    try:
        return own_contents(path)
    except ValueError:
        return None


def file_config(
    project: Project,
    tensors: Mapping[str, np.ndarray],
    arrays: Arrays,
    weights_config: SSDConfig | None,
) -> tuple[SSDConfig, str]:
    """Finds the config that a file was trained with.

    Args:
        project: Project that wrote the file.
        tensors: Arrays of the file.
        arrays: The arrays from `convert`.
        weights_config: Config given by the user, or None.

    Returns:
        The config and a sentence for the report. The config is `weights_config`, or without it the
        config of a released model, with the project's value of `integer_sizes`.

    Raises:
        ValueError: If the config cannot be found, or differs from the PriorBox layers of the file.
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
                f"its default boxes are not those of {' or '.join(known)}: {differences[0]} as in "
                f"{name} (differences in total: {len(differences)}): give an SSDConfig with the "
                "values of the file as weights_config, and build the model with it"
            )
        how = "as in its PriorBox layers"
    elif weights_config is not None:
        name, how = "weights_config", "as given"
    else:
        outputs, tilings = num_outputs(arrays), dict(project.tilings)
        if outputs not in tilings and None not in tilings:
            raise ValueError(
                f"{project.name} weights with {outputs} outputs may have any tiling: give the "
                "config that they were trained with as weights_config"
            )
        kind = tilings.get(outputs) or tilings[None]
        name = f"SSD{size}_{kind}"
        others = "models fine-tuned from COCO need" if kind == "VOC" else "other tilings need"
        how = f"assumed from {outputs} outputs; {others} weights_config"
        how += f"=SSD{size}_COCO" if kind == "VOC" else ""
    config = dataclasses.replace(known[name], integer_sizes=project.integer_sizes)
    return config, f"tiling: {name}, {how}"


def _differences(tensors: Mapping[str, np.ndarray], config: SSDConfig) -> list[str]:
    """Lists the values of a `.caffemodel`'s PriorBox layers that differ from a config."""
    layers = dict.fromkeys(n.rpartition("/")[0] for n in tensors if "_mbox_priorbox/" in n)
    if len(layers) != len(config.feature_maps):
        return [f"it has {len(layers)} PriorBox layers, not {len(config.feature_maps)}"]
    found = []
    for layer, feature_map in zip(layers, config.feature_maps, strict=True):
        cy, cx, h, w = config.variances
        # A field that a layer does not set has Caffe's default value (prior_box_layer.cpp).
        height, width = map(float, config.input_size)
        step = height / feature_map.grid[0]
        steps = [name for name in ("step", "step_h", "step_w") if f"{layer}/{name}" in tensors]
        expected: dict[str, tuple[list[float], list[float]]] = {
            "min_size": ([feature_map.min_size], []),
            "max_size": ([m for m in (feature_map.max_size,) if m is not None], []),
            "aspect_ratio": ([*feature_map.aspect_ratios], []),
            "flip": ([1], [1]),
            "clip": ([config.clip], [0]),
            "variance": ([cx, cy, w, h], [0.1] * 4),
            **{name: ([feature_map.steps[0]], [step]) for name in steps or ["step"]},
            "offset": ([0.5], [0.5]),
            **{name: ([height], [height]) for name in ("img_size", "img_h")},
            "img_w": ([width], [width]),
        }
        for name, (ours, default) in expected.items():
            theirs = np.asarray(tensors.get(f"{layer}/{name}", default), np.float32)
            if theirs.shape != np.shape(ours) or not np.allclose(theirs, ours):
                values = [round(value, 4) for value in theirs.tolist()]
                found.append(f"{layer} has {name} {values}, not {ours}")
    return found


def check_tiling(config: SSDConfig, weights_config: SSDConfig) -> tuple[str, ...] | None:
    """Checks that the heads of a file fit a model.

    A model with the tiling of a released model needs a file with the same tiling. Other models, for
    example for another image size, may differ in grids, box sizes and source layers: the offsets
    are recoded so that the boxes keep their sizes in pixels.

    Args:
        config: Config of the model.
        weights_config: Config that the file was trained with.

    Returns:
        None if the tilings are the same, except for truncated sizes. Otherwise the names of the
        maps that the file lacks, or has with other aspect ratios. The heads of these maps do not
        fit.

    Raises:
        ValueError: If the tilings differ and the model has the tiling of a released model, or if
            the values of `clip` differ.
    """
    if config.clip != weights_config.clip:
        raise ValueError(
            f"its default boxes have clip (={weights_config.clip}), but the model's config has "
            f"clip (={config.clip}): build the model with the same value"
        )
    maps, file_maps = config.feature_maps, weights_config.feature_maps
    if (config.image_size, maps) == (weights_config.image_size, file_maps):
        return None
    own = [name for name, c in CONFIGS.items() if c.feature_maps == maps]
    single = all(len({m.name for m in c}) == len(c) for c in (maps, file_maps))
    shared = {m.name for m in maps} & {m.name for m in file_maps}
    if not own and single and shared:
        # The number of a head's filters depends on the ratios and on the larger square.
        theirs = {m.name: (m.aspect_ratios, m.max_size is None) for m in file_maps}
        ours = {m.name: (m.aspect_ratios, m.max_size is None) for m in maps}
        return tuple(name for name in ours if theirs.get(name) != ours[name])
    fits = [name for name, c in CONFIGS.items() if c.feature_maps == file_maps]
    raise ValueError(
        f"its tiling is that of {' '.join(fits) or 'weights_config'}, but the model has that of "
        f"{' '.join(own) or 'another config'}: build the model with "
        f"{' '.join(fits) or 'that config'}. If the file was trained with another tiling, give the "
        "config with that tiling as weights_config"
    )


def fitting_arrays(
    arrays: Arrays, variables: Mapping[str, keras.Variable], unfit: tuple[str, ...]
) -> tuple[Arrays, tuple[str, ...]]:
    """Selects the arrays that fit a model with another tiling.

    Args:
        arrays: The arrays of a whole SSD from `convert`.
        variables: The variables of the model by "<layer>/<variable>".
        unfit: The result of `check_tiling`.

    Returns:
        The arrays without the heads of `unfit`, the layers that the model lacks, and those extra
        layers whose kernels have another size in the model; and the names of the latter.
    """
    heads = {f"{name}_{k}" for name in unfit for k in ("offsets", "logits")}
    present = {name: array for name, array in arrays.items() if name in variables}
    other = {
        name.split("/")[0]
        for name, array in present.items()
        if name.startswith(EXTRA_LAYERS)
        and name.endswith("_2/kernel")
        and array.shape[:2] != variables[name].shape[:2]
    }
    kept = {k: a for k, a in present.items() if k.split("/")[0] not in heads | other}
    return kept, tuple(sorted(other))


def tiling_warning(
    weights_config: SSDConfig, unfit: tuple[str, ...], layers: tuple[str, ...] = ()
) -> str:
    """Describes a file with another tiling.

    Args:
        weights_config: Config that the file was trained with.
        unfit: The result of `check_tiling`.
        layers: Extra layers whose kernels have another size in the model.
    """
    text = (
        f"the file was trained with another tiling, for image_size (={weights_config.image_size}): "
        "default boxes keep their sizes in pixels; fine-tune the model"
    )
    fresh = [f"the heads of {', '.join(unfit)}"] if unfit else []
    fresh += [f"the layers {', '.join(layers)}"] if layers else []
    return text + (f". Random values at the start: {'; '.join(fresh)}" if fresh else "")


def num_outputs(arrays: Arrays) -> int:
    """Returns the number of outputs for each default box, including the background.

    Args:
        arrays: The arrays of a whole SSD from `convert`.

    Raises:
        ValueError: If the sizes of the heads give different numbers.
    """
    outputs = {
        array.shape[-1] / (arrays[f"{name}_offsets/bias"].size / 4)
        for name in MAP_NAMES
        for variable in ("kernel", "bias")
        if (array := arrays.get(f"{name}_logits/{variable}")) is not None
    }
    if len(outputs) != 1 or not (n := outputs.pop()).is_integer() or n < 2:
        raise ValueError("the sizes of its heads do not agree on one number of classes")
    return int(n)
