"""What the heads of an SSD in a file predict: for which default boxes, and which classes."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from ssd_keras.class_names import COCO_CLASSES, COCO_ID_NAMES, VOC_CLASSES, class_key, unique_names
from ssd_keras.config import CONFIGS, MAP_NAMES, SSDConfig
from ssd_keras.weight_conversion import Arrays
from ssd_keras.weight_sources import Source

_MAX_CONFIG_BYTES = 1 << 24  # of a .keras file's config.json; that of SSD512 has 30 kB
_CLASSES_BY_OUTPUTS = {21: VOC_CLASSES, 81: COCO_CLASSES, 91: COCO_ID_NAMES}


def own_meaning(path: str | os.PathLike[str]) -> tuple[SSDConfig, tuple[str, ...] | None]:
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
            f"({error or type(error).__name__}); for other files give source_config and "
            "source_labels"
        ) from error


def tiling(
    source: Source,
    tensors: Mapping[str, np.ndarray],
    arrays: Arrays,
    source_config: SSDConfig | None,
) -> tuple[SSDConfig, str]:
    """The config that a file's heads were trained with.

    Args:
        source: Whose weights.
        tensors: Arrays of the file.
        arrays: The same, converted.
        source_config: What the user says it is.

    Returns:
        `source_config` or a released config, sizes truncated or not as the source does, and a
        sentence on how it is known, for the report.

    Raises:
        ValueError: If it cannot be known, or the file says otherwise.
    """
    size = 512 if f"{MAP_NAMES[-1]}_offsets/kernel" in arrays else 300
    known = {name: config for name, config in CONFIGS.items() if config.image_size == size}
    if source_config is not None:
        known = {"source_config": source_config}
    if any("_mbox_priorbox/" in name for name in tensors):
        differing = {name: _differences(tensors, config) for name, config in known.items()}
        name = min(differing, key=lambda name: len(differing[name]))
        if differences := differing[name]:
            raise ValueError(
                f"its default boxes are not those of {' or '.join(known)}: {differences[0]} in "
                f"{name}; {len(differences)} such values differ: give the SSDConfig that has them "
                "as source_config, and build the model with it"
            )
        how = "as its PriorBox layers say"
    elif source_config is not None:
        name, how = "source_config", "as told"
    else:
        outputs, tilings = num_outputs(arrays), dict(source.tilings)
        if outputs not in tilings and None not in tilings:
            raise ValueError(
                f"{source.name} weights of {outputs} outputs may have any tiling: give the config "
                "that they were trained with as source_config"
            )
        kind = tilings.get(outputs) or tilings[None]
        name = f"SSD{size}_{kind}"
        others = "models fine-tuned from COCO need" if kind == "VOC" else "others need"
        how = f"assumed from {outputs} outputs; {others} source_config"
        how += f"=SSD{size}_COCO" if kind == "VOC" else ""
    config = dataclasses.replace(known[name], integer_sizes=source.integer_sizes)
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
            "max_size": ([feature_map.max_size], []),
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


def check_tiling(config: SSDConfig, source_config: SSDConfig) -> None:
    """Refuses a model whose default boxes are not those of the file.

    Args:
        config: The model's.
        source_config: The file's.

    Raises:
        ValueError: If centres, sizes, aspect ratios or clipping differ, but for the truncation of
            sizes.
    """
    if config.clip != source_config.clip:
        raise ValueError(
            f"its default boxes have clip (={source_config.clip}), but the model's config has clip "
            f"(={config.clip}): build the model with the config that has the same"
        )
    maps, source_maps = config.feature_maps, source_config.feature_maps
    if (config.image_size, maps) == (source_config.image_size, source_maps):
        return
    fits = [name for name, c in CONFIGS.items() if c.feature_maps == source_maps]
    own = [name for name, c in CONFIGS.items() if c.feature_maps == maps]
    raise ValueError(
        f"its tiling is that of {' '.join(fits) or 'source_config'}, but the model has that of "
        f"{' '.join(own) or 'another config'}: build the model with "
        f"{' '.join(fits) or 'that config'}, or, if the file was trained with another tiling than "
        "its number of classes suggests, give that as source_config"
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


@dataclasses.dataclass(frozen=True, slots=True)
class ClassMatch:
    """Which outputs of a file serve which outputs of a model.

    Attributes:
        rows: For each output of the model, background first, that of the file; -1 for none.
        outputs: How many the file has, background included.
        fresh: Names of the model's classes that the file has not.
        note: A sentence on how classes were found, for the report.
        warning: What is doubtful in that, or "".
    """

    rows: tuple[int, ...]
    outputs: int
    fresh: tuple[str, ...]
    note: str
    warning: str = ""

    @property
    def state(self) -> str:
        """What becomes of the logits, for the report."""
        if sorted(self.rows) == list(range(self.outputs)):
            return "loaded"
        reused = sum(row >= 0 for row in self.rows) - 1
        return (
            f"sliced: background and {reused} of the file's {self.outputs - 1} classes; "
            f"fresh: {len(self.fresh)}"
        )


def match_classes(
    outputs: int,
    source_labels: Sequence[str] | None,
    num_classes: int,
    labels: Sequence[str] | None,
    background_last: bool,
    released: bool = True,
) -> ClassMatch:
    """Finds each class of a model among those of a file, by name.

    Args:
        outputs: Outputs of the file for each box, background included.
        source_labels: Names of its classes; 20, 80 and 90 classes are otherwise taken for VOC's,
            COCO's and COCO's category ids.
        num_classes: Of the model, without background.
        labels: Names of its classes, if it has them.
        background_last: Where the file's background is.
        released: Whether there are released weights with as many outputs, so that the names of
            these are to be expected.

    Raises:
        ValueError: If names are needed, but not known; if `source_labels` has another length.
    """
    count = outputs - 1
    if source_labels is not None and len(source_labels) != count:
        raise ValueError(
            f"source_labels has {len(source_labels)} names, but the file has {count} classes"
        )
    background, first = (count, 0) if background_last else (0, 1)
    theirs = source_labels or _CLASSES_BY_OUTPUTS.get(outputs)
    warning = ""
    if labels is not None and source_labels is None and not (released and theirs):
        taken = "the model's, in its order" if theirs is None else f"{theirs[0]} ... {theirs[-1]}"
        warning = (
            f"the file does not name its {count} classes; they are taken for {taken}: give "
            "source_labels to be sure"
        )
    if labels is None and num_classes != count:
        labels = _CLASSES_BY_OUTPUTS.get(num_classes + 1)
    if num_classes == count and (
        labels is None or theirs is None or tuple(labels) == tuple(theirs)
    ):
        rows = [*range(first, first + count)]
        note = f"classes: the file's {count}, in its order"
        return ClassMatch((background, *rows), outputs, (), note, warning)
    if labels is None or theirs is None:
        missing = "source_labels" if theirs is None else "labels to the model"
        raise ValueError(
            f"it has {count} classes and the model {num_classes}: give {missing}, so that classes "
            "can be found by name"
        )
    places = {class_key(name): first + i for i, name in enumerate(unique_names(theirs))}
    rows = [places.get(class_key(name), -1) for name in unique_names(labels)]
    fresh = tuple(name for name, row in zip(labels, rows, strict=True) if row < 0)
    note = f"classes: found by name among {theirs[0]} ... {theirs[-1]}"
    return ClassMatch((background, *rows), outputs, fresh, note, warning)
