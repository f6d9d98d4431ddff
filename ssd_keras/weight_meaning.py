"""What the heads of an SSD in a file predict: for which default boxes, and which classes."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from ssd_keras.class_names import COCO_CLASSES, COCO_ID_NAMES, VOC_CLASSES, class_key
from ssd_keras.config import CONFIGS, SSDConfig
from ssd_keras.weight_conversion import Arrays
from ssd_keras.weight_sources import MAPS, Source

_CLASSES_BY_OUTPUTS = {21: VOC_CLASSES, 81: COCO_CLASSES, 91: COCO_ID_NAMES}


def own_meaning(path: str | os.PathLike[str]) -> tuple[SSDConfig, tuple[str, ...] | None]:
    """Config and class names of a `.keras` file of `ssd_vgg16`; nothing in it is run.

    Raises:
        ValueError: If the file does not tell them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        (saved,) = (layer["config"] for layer in layers if layer["name"] == "predictions")
        labels = saved["labels"]
        return SSDConfig.from_dict(saved["ssd_config"]), None if labels is None else tuple(labels)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"named like this package's models, it must be a .keras file of one ({error}); "
            "for other files give source_config and source_labels"
        ) from error


def tiling(
    source: Source,
    tensors: Mapping[str, np.ndarray],
    arrays: Arrays,
    source_config: SSDConfig | None,
) -> SSDConfig:
    """The config that a file's heads were trained with.

    Args:
        source: Whose weights.
        tensors: Arrays of the file.
        arrays: The same, converted.
        source_config: What the user says it is.

    Returns:
        `source_config` or a released config, sizes truncated or not as the source does.

    Raises:
        ValueError: If it cannot be known, or the file says otherwise.
    """
    size = 512 if f"{MAPS[-1]}_offsets/kernel" in arrays else 300
    known = {name: config for name, config in CONFIGS.items() if config.image_size == size}
    if source_config is not None:
        known = {"source_config": source_config}
    if sizes := _prior_box_sizes(tensors):
        fits = [name for name, config in known.items() if _has_sizes(config, sizes)]
        if not fits:
            raise ValueError(
                f"its default boxes have the sizes {sizes}, not those of {' or '.join(known)}: "
                "give the SSDConfig that has them as source_config, and build the model with it"
            )
        name = fits[0]
    elif source_config is not None:
        name = "source_config"
    else:
        outputs, tilings = num_outputs(arrays), dict(source.tilings)
        if outputs not in tilings and None not in tilings:
            raise ValueError(
                f"{source.name} weights of {outputs} outputs may have any tiling: give the config "
                "that they were trained with as source_config"
            )
        name = f"SSD{size}_{tilings.get(outputs) or tilings[None]}"
    return dataclasses.replace(known[name], integer_sizes=source.integer_sizes)


def _has_sizes(config: SSDConfig, sizes: list[tuple[list[float], list[float]]]) -> bool:
    ours = [([m.min_size], [m.max_size]) for m in config.feature_maps]
    return np.shape(ours) == np.shape(sizes) and np.allclose(ours, sizes)


def _prior_box_sizes(tensors: Mapping[str, np.ndarray]) -> list[tuple[list[float], list[float]]]:
    """The min_sizes and max_sizes, pixels, of each PriorBox layer of a `.caffemodel`."""
    layers = [
        name.rpartition("/")[0] for name in tensors if name.endswith("_mbox_priorbox/min_size")
    ]
    return [
        (tensors[f"{layer}/min_size"].tolist(), tensors[f"{layer}/max_size"].tolist())
        for layer in layers
    ]


def check_tiling(config: SSDConfig, source_config: SSDConfig) -> None:
    """Refuses a model whose default boxes are not those of the file.

    Args:
        config: The model's.
        source_config: The file's.

    Raises:
        ValueError: If centres, sizes or aspect ratios differ, but for the truncation of sizes.
    """
    if config.clip and not source_config.clip:
        raise ValueError("the model's config has clip (=True), which no released weights had")
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
        for name in MAPS
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
    """

    rows: tuple[int, ...]
    outputs: int
    fresh: tuple[str, ...]
    note: str

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
) -> ClassMatch:
    """Finds each class of a model among those of a file, by name.

    Args:
        outputs: Outputs of the file for each box, background included.
        source_labels: Names of its classes; 20, 80 and 90 classes are otherwise taken for VOC's,
            COCO's and COCO's category ids.
        num_classes: Of the model, without background.
        labels: Names of its classes, if it has them.
        background_last: Where the file's background is.

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
    if labels is None and num_classes != count:
        labels = _CLASSES_BY_OUTPUTS.get(num_classes + 1)
    if num_classes == count and (
        labels is None or theirs is None or tuple(labels) == tuple(theirs)
    ):
        in_order = (background, *range(first, first + count))
        return ClassMatch(in_order, outputs, (), f"classes: the file's {count}, in its order")
    if labels is None or theirs is None:
        missing = "source_labels" if theirs is None else "labels to the model"
        raise ValueError(
            f"it has {count} classes and the model {num_classes}: give {missing}, so that classes "
            "can be found by name"
        )
    places = {class_key(name): first + i for i, name in enumerate(theirs) if name != "N/A"}
    rows = [places.get(class_key(name), -1) for name in labels]
    fresh = tuple(name for name, row in zip(labels, rows, strict=True) if row < 0)
    note = f"classes: found by name among {theirs[0]} ... {theirs[-1]}"
    return ClassMatch((background, *rows), outputs, fresh, note)
