"""Weights of other projects into our layers."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from absl import logging

from ssd_keras import vgg16
from ssd_keras.config import SSDConfig
from ssd_keras.default_boxes import default_boxes
from ssd_keras.weight_conversion import (
    Arrays,
    box_shapes,
    convert,
    recode_offsets,
    select_classes,
    shift_mean,
)
from ssd_keras.weight_files import read_tensors
from ssd_keras.weight_meaning import (
    ClassMatch,
    check_tiling,
    match_classes,
    num_outputs,
    own_meaning,
    tiling,
)
from ssd_keras.weight_report import WeightReport
from ssd_keras.weight_sources import EXTRA_LAYERS, MAPS, OWN, SCALE, VGG_LAYERS, Source, find_source


def load_weights(
    model: keras.Model,
    path: str | os.PathLike[str],
    source: str | None = None,
    *,
    source_labels: Sequence[str] | None = None,
    source_config: SSDConfig | None = None,
) -> WeightReport:
    """Loads weights of another project or model, so that the model gives its detections.

    A file of VGG16 sets the backbone only. From one of a whole SSD the classes are taken by name:
    the logits of a class that the file has not keep their initial values; background and offsets
    are always taken. After an error the model is as it was.

    Args:
        model: From `ssd_vgg16`.
        path: A file (see `read_tensors` for the kinds; also a `.keras` file of `ssd_vgg16`, with
            any classes), or "imagenet": keras.applications' VGG16, downloaded.
        source: Name of the source; found out from the names of the tensors by default.
        source_labels: Names of the file's classes without background, if they are not VOC's or
            COCO's.
        source_config: The tiling that the file was trained with, if it is not the one that its
            source and number of classes suggest; VOC models fine-tuned from COCO need it.

    Returns:
        What was used, skipped, loaded, sliced and left at its initial values. It is logged, too.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, follows no known naming, lacks tensors or does not fit
            the model; if it needs PyTorch, and that is missing or too old.
        OSError: If "imagenet" cannot be downloaded.
    """
    tensors = vgg16.imagenet_tensors() if path == "imagenet" else read_tensors(path)
    variables = {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }
    try:
        found = find_source(tensors, source)
        if found.name == OWN:
            if source_config is None:
                source_config, own_labels = own_meaning(path)
                source_labels = source_labels or own_labels
            found = dataclasses.replace(
                found, mean=source_config.mean, integer_sizes=source_config.integer_sizes
            )
        is_ssd = _check_complete(found, tensors)
        arrays = convert(tensors, found)
        if is_ssd:
            predictions = model.get_layer("predictions")
            config = predictions.ssd_config
            their_config = tiling(found, tensors, arrays, source_config)
            check_tiling(config, their_config)
        _check_shapes(arrays, variables)
        notes = [f"source: {found.name}, {'as told' if source else 'found by its tensors'}"]
        notes += _layer_notes(found, arrays)
        classes = None
        if is_ssd:
            classes = match_classes(
                num_outputs(arrays),
                source_labels,
                predictions.num_classes,
                predictions.labels,
                found.background_last,
            )
            arrays |= _fit_first(arrays, found, config)
            arrays |= _fit_offsets(arrays, found, their_config, config)
            arrays |= _fit_logits(arrays, classes, variables)
            notes += [*_head_notes(found, their_config, config), classes.note]
    except ValueError as error:
        raise ValueError(f"weights (={path}): {error}") from error
    for name, array in arrays.items():
        variables[name].assign(array)

    report = _report(path, found, tensors, variables, arrays, classes, notes)
    logging.info("%s", report)
    for warning in report.warnings:
        logging.warning("%s: %s", path, warning)
    return report


def _check_complete(source: Source, tensors: Mapping[str, np.ndarray]) -> bool:
    """Refuses a file that lacks tensors; tells whether it is a whole SSD or a VGG16 only."""
    found = {ours for theirs, ours in source.tensors.items() if theirs in tensors}
    layers = {name.split("/")[0] for name in found}
    is_ssd = not layers <= set(VGG_LAYERS)
    expected = [*vgg16.CONVOLUTIONS]
    if is_ssd:
        maps = 7 if layers & {"conv12_1", "conv12_2", f"{MAPS[6]}_offsets"} else 6
        heads = (f"{name}_{kind}" for name in MAPS[:maps] for kind in ("offsets", "logits"))
        expected = [*VGG_LAYERS, *EXTRA_LAYERS[: 2 * maps - 4], *heads]
    elif layers & {"fc6", "fc7"}:
        expected += ["fc6", "fc7"]
    names = {f"{layer}/{variable}" for layer in expected for variable in ("kernel", "bias")}
    if is_ssd:
        names.add(SCALE)
    missing = [theirs for theirs, ours in source.tensors.items() if ours in names - found]
    if missing:
        unknown = sorted(tensors.keys() - source.tensors.keys())
        raise ValueError(
            f"taken for {source.name}'s, it lacks {_some(missing)}"
            + (f"; it has the unknown {_some(unknown)}" if unknown else "")
        )
    return is_ssd


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _check_shapes(arrays: Arrays, variables: Mapping[str, keras.Variable]) -> None:
    """Compares all shapes, but for the number of classes."""
    for name, array in arrays.items():
        if name not in variables:
            raise ValueError(f"the model has no {name}: it must be made by ssd_vgg16")
        theirs, ours = array.shape, tuple(variables[name].shape)
        if "_logits" in name:
            theirs, ours = theirs[:-1], ours[:-1]
        if theirs != ours:
            raise ValueError(
                f"{name} has shape {array.shape}, but in the model {tuple(variables[name].shape)}: "
                "released weights fit models of width 1.0 only"
            )


def _fit_first(arrays: Arrays, source: Source, config: SSDConfig) -> Arrays:
    kernel, bias = arrays["conv1_1/kernel"], arrays["conv1_1/bias"]
    return {"conv1_1/bias": shift_mean(kernel, bias, source.mean, config.mean)}


def _fit_offsets(
    arrays: Arrays, source: Source, source_config: SSDConfig, config: SSDConfig
) -> Arrays:
    """The offsets heads, for default boxes of the model's exact shapes and variances."""
    fitted = {}
    theirs = box_shapes(source_config, source.clamped_sizes)
    for feature_map, their_shapes, our_shapes in zip(
        config.feature_maps, theirs, box_shapes(config), strict=True
    ):
        kernel, bias = (f"{feature_map.name}_offsets/{v}" for v in ("kernel", "bias"))
        fitted[kernel], fitted[bias] = recode_offsets(
            arrays[kernel],
            arrays[bias],
            their_shapes,
            our_shapes,
            source_config.variances,
            config.variances,
        )
    return fitted


def _fit_logits(
    arrays: Arrays, classes: ClassMatch, variables: Mapping[str, keras.Variable]
) -> Arrays:
    return {
        name: select_classes(array, classes.rows, np.asarray(variables[name]))
        for name, array in arrays.items()
        if "_logits" in name
    }


def _layer_notes(source: Source, arrays: Arrays) -> list[str]:
    notes = []
    if source.rgb:
        notes.append("conv1_1: kernel turned from RGB to BGR")
    if source.dense_fc and "fc6/kernel" in arrays:
        notes.append("fc6, fc7: subsampled from VGG16's fully connected layers")
    return notes


def _head_notes(source: Source, theirs: SSDConfig, ours: SSDConfig) -> list[str]:
    notes = [f"default boxes: {theirs.image_size} x {theirs.image_size}, the model's tiling"]
    if source.mean != ours.mean:
        notes.append(
            f"conv1_1: mean {source.mean} folded into the bias (the model subtracts {ours.mean}); "
            "exact but for the outermost pixels"
        )
    shapes = zip(box_shapes(theirs, source.clamped_sizes), box_shapes(ours), strict=True)
    recoded = sum(int((a != b).any(axis=1).sum()) for a, b in shapes)
    if recoded:
        notes.append(
            f"offsets: {recoded} of the shapes of default boxes are clamped or truncated in one of "
            "the two; kernels and biases are recoded so that decoded boxes stay the same"
        )
    outside = int((default_boxes(theirs)[:, :2] > 1).any(axis=1).sum())
    if source.clamped_centres and outside:
        notes.append(
            f"DIFFERENCE: {outside} default boxes are centred outside the image, where "
            f"{source.name} moves them to its edge and this model, as the original, does not"
        )
    if source.offset_order != (0, 1, 2, 3):
        notes.append("offsets: (cx, cy, w, h) reordered to (cy, cx, h, w)")
    if source.background_last:
        notes.append("logits: background moved from last to first")
    return notes


def _report(
    path: str | os.PathLike[str],
    source: Source,
    tensors: Mapping[str, np.ndarray],
    variables: Mapping[str, keras.Variable],
    arrays: Arrays,
    classes: ClassMatch | None,
    notes: list[str],
) -> WeightReport:
    states = dict.fromkeys((name.split("/")[0] for name in variables), "fresh")
    for name in arrays:
        layer = name.split("/")[0]
        states[layer] = classes.state if classes and layer.endswith("_logits") else "loaded"
    warnings = []
    if states.get("fc6") == "fresh":
        warnings.append(
            "fc6 and fc7 are not in the file and START RANDOM: use weights with top, or a "
            "pretrained SSD"
        )
    if classes and classes.fresh:
        warnings.append(f"classes that are not in the file start random: {_some(classes.fresh)}")
    return WeightReport(
        path=os.fspath(path),
        source=source.name,
        notes=tuple(notes),
        warnings=tuple(warnings),
        tensors=tuple((name, array.shape, _use(name, source)) for name, array in tensors.items()),
        layers=tuple(states.items()),
    )


def _use(name: str, source: Source) -> str:
    if "_mbox_priorbox/" in name:
        return "used: compared with the tiling"
    return f"used: {source.tensors[name]}" if name in source.tensors else "skipped: unknown"
