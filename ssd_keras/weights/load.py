"""Loads a weights file into a model."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from absl import logging

from ssd_keras import vgg16
from ssd_keras.boxes import yxyx_to_cyxhw
from ssd_keras.config import MAP_NAMES, SSD300_VOC, SSD512_VOC, SSDConfig
from ssd_keras.initialization import initial_weights, named_variables
from ssd_keras.predictions import Predictions
from ssd_keras.tiling import default_boxes
from ssd_keras.weights.classes import ClassMatch, match_classes
from ssd_keras.weights.conversion import (
    box_shapes,
    convert,
    recode_offsets,
    select_classes,
    shift_mean,
)
from ssd_keras.weights.formats import Arrays, read_tensors, weight_files
from ssd_keras.weights.naming import OWN, SCALE, VGG_LAYERS, Project, head_names
from ssd_keras.weights.projects import find_project
from ssd_keras.weights.report import WeightReport, some_names, tensor_use
from ssd_keras.weights.tiling import (
    check_tiling,
    file_config,
    fitting_arrays,
    num_outputs,
    own_contents,
    tiling_warning,
)


def load_weights(
    model: keras.Model,
    weights: str | os.PathLike[str],
    *,
    weights_project: str | None = None,
    weights_labels: Sequence[str] | None = None,
    weights_config: SSDConfig | None = None,
) -> WeightReport:
    """Loads weights of another project, or of another model of this package.

    A file of a VGG16 sets the backbone only. A file of a whole SSD also sets the extra layers and
    the heads. Classes are mapped by name; the background and the offsets are always loaded. Layers
    and classes that the file lacks are newly initialized; see `initial_weights`. If an error is
    raised, the model is not changed.

    Args:
        model: A model of `ssd_vgg16`.
        weights: Path of a file (`read_tensors` lists the formats), such as a `.keras` file of
            `ssd_vgg16` with any classes. Or "imagenet", for the VGG16 of keras.applications, which
            Keras downloads.
        weights_project: Project that wrote the file: "torchvision", "amdegroot", "amdegroot_caffe"
            (for ssd_300_VOC0712.pth), "lufficc", "mmdetection", "mmdetection_old" (before 2.14),
            "caffe", "pierluigi", "oarriaga", "balancap", "chainercv" or "ssd_keras"; for a VGG16
            "keras_vgg16", "amdegroot_vgg16" or "torchvision_vgg16". If None, it is detected from
            the names of the tensors.
        weights_labels: Class names of the file without the background, in its order. If None, they
            are assumed from the number of classes (VOC or COCO) or read from a `.keras` file of
            `ssd_vgg16`.
        weights_config: Config with the tiling that the file was trained with. If None, the tiling
            is read from the file (Caffe, `ssd_vgg16`) or assumed from its project and number of
            classes. VOC models fine-tuned from COCO need the COCO tiling.

    Returns:
        Report of the tensors used and the layers loaded. Its summary and warnings are also logged.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged, matches no known project, lacks tensors or does not fit
            the model; if it needs PyTorch, and PyTorch is missing or too old; if the model was not
            made by `ssd_vgg16`.
        OSError: If "imagenet" cannot be downloaded.
    """
    head = next((layer for layer in model.layers if isinstance(layer, Predictions)), None)
    if head is None:
        raise ValueError(f"model (={model.name!r}) must be made by ssd_vgg16")
    if weights == "imagenet" and head.width != 1:  # before the download of half a gigabyte
        raise ValueError(f'width (={head.width}) must be 1 for weights="imagenet", or use None')
    tensors = vgg16.imagenet_tensors() if weights == "imagenet" else read_tensors(weights)
    variables = named_variables(model)
    classes = None
    try:
        found = find_project(tensors, weights_project)
        how = "as given" if weights_project else "detected from the names of its tensors"
        notes = [f"project: {found.name}, {how}"]
        notes += found.check(tensors)
        if found.name == OWN:
            if weights_config is None:
                own = own_contents(weights)
                weights_config, weights_labels = own.config, weights_labels or own.labels
            found = dataclasses.replace(
                found, mean=weights_config.mean, integer_sizes=weights_config.integer_sizes
            )
        is_ssd, warnings = _check_complete(found, tensors, weights_config), []
        if found.rgb is None:
            theirs = {ours: name for name, ours in found.tensors.items()}
            rgb = vgg16.takes_rgb(tensors[theirs["conv1_1/kernel"]])
            found = dataclasses.replace(found, rgb=rgb is not False)
            if rgb is None:
                warnings.append("images: RGB assumed; conv1_1 is not that of the ImageNet VGG16")
            else:
                notes.append(f"images: {'RGB' if rgb else 'BGR'}, detected from conv1_1")
        arrays = convert(tensors, found, full=not head.ssd_config.atrous)
        if is_ssd:
            their_config, note = file_config(found, tensors, arrays, weights_config)
            notes.append(note)
            outputs = num_outputs(arrays)
            if (unfit := check_tiling(head.ssd_config, their_config)) is not None:
                arrays, other = fitting_arrays(arrays, variables, unfit)
                warnings.append(tiling_warning(their_config, unfit, other))
            if weights_config is None and outputs in found.both_tilings:
                warnings.append(note)
        _check_shapes(found, tensors, arrays, variables)
        notes += _layer_notes(found, arrays)
        layers = {name.split("/")[0] for name in arrays}
        initial = initial_weights(model, {name for name in layers if not name.endswith("_logits")})
        if is_ssd:
            classes = match_classes(
                outputs,
                weights_labels,
                head.num_classes,
                head.labels,
                found.background_last,
                released=outputs in dict(found.tilings),
            )
            steps = (
                _fit_conv1_1(arrays, found, head.ssd_config),
                _fit_offsets(arrays, found, their_config, head.ssd_config),
                _fit_logits(arrays, found, classes, initial),
            )
            for fitted, more in steps:
                arrays |= fitted
                notes += more
            notes += [classes.note, *_differences(found, their_config)]
    except ValueError as error:
        raise ValueError(f"weights (={weights}): {error}") from error
    for name, array in (initial | arrays).items():
        variables[name].assign(array)

    report = _report(weights, found, tensors, variables, arrays, classes, notes, warnings)
    logging.info("%s: %s", weights, report.summary)
    for warning in report.warnings:
        logging.warning("%s: %s", weights, warning)
    return report


def _check_complete(
    project: Project, tensors: Mapping[str, np.ndarray], config: SSDConfig | None
) -> bool:
    """Checks that a file has all tensors of a config, or of SSD300 or SSD512 without a config.

    Returns:
        Whether the file holds a whole SSD, not only a VGG16.

    Raises:
        ValueError: If tensors are missing.
    """
    found = {ours for theirs, ours in project.tensors.items() if theirs in tensors}
    layers = {name.split("/")[0] for name in found}
    is_ssd = not layers <= set(VGG_LAYERS)
    expected = [*vgg16.CONVOLUTIONS]
    if is_ssd:
        if config is None or project.name != OWN:
            has_seven = layers & {"conv12_1", "conv12_2", f"{MAP_NAMES[6]}_offsets"}
            config = SSD512_VOC if has_seven else SSD300_VOC
        extra = (f"{layer.name}_{k}" for layer in config.extra_layers for k in (1, 2))
        maps = head_names(config) if project.name == OWN else [m.name for m in config.feature_maps]
        heads = (f"{name}_{kind}" for name in maps for kind in ("offsets", "logits"))
        expected = [*VGG_LAYERS, *extra, *heads]
    elif layers & {"fc6", "fc7"}:
        expected += ["fc6", "fc7"]
    names = {f"{layer}/{variable}" for layer in expected for variable in ("kernel", "bias")}
    if is_ssd:
        names.add(SCALE)
    missing = [theirs for theirs, ours in project.tensors.items() if ours in names - found]
    if missing:
        unknown = sorted(tensors.keys() - project.tensors.keys())
        raise ValueError(
            f"a file of {project.name} must have more tensors: it lacks {some_names(missing)}"
            + (f"; unknown tensors: {some_names(unknown)}" if unknown else "")
        )
    return is_ssd


def _check_shapes(
    project: Project,
    tensors: Mapping[str, np.ndarray],
    arrays: Arrays,
    variables: Mapping[str, keras.Variable],
) -> None:
    """Raises ValueError if a shape is wrong. Only the number of classes may differ."""
    names = {ours: theirs for theirs, ours in project.tensors.items()}
    for ours, array in arrays.items():
        if ours not in variables:
            raise ValueError(f"the model has no {ours}: it must be made by ssd_vgg16")
        expected = tuple(variables[ours].shape)
        if "_logits" in ours:
            expected = (*expected[:-1], array.shape[-1])
        if array.shape != expected:
            if project.channels_first and ours.endswith("kernel"):
                expected = tuple(expected[axis] for axis in (3, 2, 0, 1))
            hint = "; released weights fit models of width 1.0 only" if "conv1_1" in ours else ""
            theirs = names[ours]
            raise ValueError(
                f"{theirs} has shape {tensors[theirs].shape}, but must have {expected} for the "
                f"model's {ours}{hint}"
            )


def _layer_notes(project: Project, arrays: Arrays) -> list[str]:
    notes = []
    if project.rgb:
        notes.append("conv1_1: kernel reordered from RGB to BGR")
    if project.dense_fc and arrays.get("fc6/bias", np.zeros(0)).size == 1024:
        notes.append("fc6, fc7: subsampled from VGG16's fully connected layers")
    return notes


# Each of the next three functions returns arrays that replace those of the file, and notes for the
# report.


def _fit_conv1_1(arrays: Arrays, project: Project, config: SSDConfig) -> tuple[Arrays, list[str]]:
    """Adapts the bias of conv1_1, [64], to the mean that the model subtracts."""
    if project.mean == config.mean:
        return {}, []
    kernel, bias = arrays["conv1_1/kernel"], arrays["conv1_1/bias"]
    note = (
        f"conv1_1: mean {project.mean} folded into the bias (the model subtracts {config.mean}); "
        "exact except for the outermost pixels"
    )
    return {"conv1_1/bias": shift_mean(kernel, bias, project.mean, config.mean)}, [note]


def _fit_offsets(
    arrays: Arrays, project: Project, weights_config: SSDConfig, config: SSDConfig
) -> tuple[Arrays, list[str]]:
    """Adapts the offsets heads to the shapes and variances of the model's default boxes.

    Their kernels are [3, 3, channels, A * 4] and their biases [A * 4].
    """
    fitted, recoded, notes = {}, 0, []
    file_shapes = box_shapes(weights_config, project.clamped_sizes)
    their_shapes = dict(zip(head_names(weights_config), file_shapes, strict=True))
    # The network sees pixels: for another image size, boxes keep their sizes in pixels.
    scale = np.divide(weights_config.input_size, config.input_size)
    for head, ours in zip(head_names(config), box_shapes(config), strict=True):
        if f"{head}_offsets/bias" not in arrays:
            continue
        theirs = their_shapes[head] * scale
        kernel, bias = (f"{head}_offsets/{v}" for v in ("kernel", "bias"))
        variances = weights_config.variances, config.variances
        recoded += int((theirs != ours).any(axis=1).sum())
        fitted[kernel], fitted[bias] = recode_offsets(
            arrays[kernel], arrays[bias], theirs, ours, *variances
        )
    if recoded:
        notes.append(
            f"offsets: {recoded} shapes of default boxes differ between file and model; kernels "
            "and biases are changed so that decoded boxes stay the same"
        )
    if project.offset_order != (0, 1, 2, 3):
        notes.append("offsets: (cx, cy, w, h) reordered to (cy, cx, h, w)")
    return fitted, notes


def _fit_logits(
    arrays: Arrays, project: Project, classes: ClassMatch, initial: Arrays
) -> tuple[Arrays, list[str]]:
    """Selects the classes of the logits heads.

    Their kernels are [3, 3, channels, A * (1 + C)] and their biases [A * (1 + C)].
    """
    fitted = {
        name: select_classes(array, classes.rows, initial[name])
        for name, array in arrays.items()
        if "_logits" in name
    }
    moved = ["logits: background moved from last to first"] if project.background_last else []
    return fitted, moved


def _differences(project: Project, weights_config: SSDConfig) -> list[str]:
    """Lists the differences between the project's detector and this package."""
    if not project.clamped_centers:
        return [*project.differences]
    centers = yxyx_to_cyxhw(default_boxes(weights_config)).numpy()[:, :2]
    outside = int((centers > 1).any(axis=1).sum())
    if not outside:
        return [*project.differences]
    return [
        f"DIFFERENCE: {outside} default boxes have centers outside the image; {project.name} moves "
        "them to its edge, but this package and the original do not",
        *project.differences,
    ]


def _report(
    path: str | os.PathLike[str],
    project: Project,
    tensors: Mapping[str, np.ndarray],
    variables: Mapping[str, keras.Variable],
    arrays: Arrays,
    classes: ClassMatch | None,
    notes: list[str],
    warnings: list[str],
) -> WeightReport:
    states = dict.fromkeys((name.split("/")[0] for name in variables), "fresh")
    for name in arrays:
        layer = name.split("/")[0]
        states[layer] = classes.state if classes and layer.endswith("_logits") else "loaded"
    if path != "imagenet":
        hashes = []
        for name in weight_files(path):
            with open(name, "rb") as file:
                hashes.append(f"sha256: {hashlib.file_digest(file, 'sha256').hexdigest()}")
            if name != os.fspath(path):
                hashes[-1] += f" {os.path.basename(name)}"
        notes = [*hashes, *notes]
    warnings = [*warnings]
    if states.get("fc6") == "fresh":
        warnings.append(
            "fc6 and fc7 are not in the file and START WITH RANDOM VALUES: use VGG16 weights "
            "with top, or a pretrained SSD"
        )
    if classes and classes.fresh:
        fresh = some_names(classes.fresh)
        warnings.append(f"classes that are not in the file start with random values: {fresh}")
    if classes and classes.warning:
        warnings.append(classes.warning)
    return WeightReport(
        path=os.fspath(path),
        project=project.name,
        notes=tuple(notes),
        warnings=tuple(warnings),
        tensors=tuple(
            (name, array.shape, tensor_use(name, project.tensors))
            for name, array in tensors.items()
        ),
        layers=tuple(states.items()),
    )
