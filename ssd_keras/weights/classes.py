"""Mapping from the classes of a weights file to the classes of a model."""

import dataclasses
from collections.abc import Sequence

from ssd_keras.class_names import COCO_CLASSES, COCO_ID_NAMES, VOC_CLASSES, class_key, unique_names

_CLASSES_BY_OUTPUTS = {21: VOC_CLASSES, 81: COCO_CLASSES, 91: COCO_ID_NAMES}


@dataclasses.dataclass(frozen=True, slots=True)
class ClassMatch:
    """The mapping between the outputs of a file and those of a model.

    An output is one logit of a default box: the background or a class.

    Attributes:
        rows: For each output of the model, background first, the index of the output in the file;
            -1 if the file does not have this class.
        outputs: Number of outputs in the file, including the background.
        fresh: Names of the model's classes that the file does not have. They are newly initialized.
        note: A sentence for the report about how the classes were mapped.
        warning: A sentence for the report about an uncertain assumption, or "" if there is none.
    """

    rows: tuple[int, ...]
    outputs: int
    fresh: tuple[str, ...]
    note: str
    warning: str = ""

    @property
    def state(self) -> str:
        """State of the logits heads, for the report: "loaded" or "sliced: ..."."""
        if sorted(self.rows) == list(range(self.outputs)):
            return "loaded"
        reused = sum(row >= 0 for row in self.rows) - 1
        return (
            f"sliced: background and {reused} of the file's {self.outputs - 1} classes; "
            f"fresh: {len(self.fresh)}"
        )


def match_classes(
    outputs: int,
    weights_labels: Sequence[str] | None,
    num_classes: int,
    labels: Sequence[str] | None,
    background_last: bool,
    released: bool = True,
) -> ClassMatch:
    """Maps the classes of a file to the classes of a model by name.

    Args:
        outputs: Number of outputs of the file for each default box, including the background.
        weights_labels: Class names of the file. If None, 20 classes are assumed to be VOC's, 80
            classes COCO's, and 90 classes COCO's category ids 1 to 90.
        num_classes: Number of classes of the model, without the background.
        labels: Class names of the model, or None if it has none.
        background_last: Whether the background is the last output of the file, not the first.
        released: Whether the file's project has released weights with this number of outputs. If
            True, the file probably has the classes of those weights, and there is no warning about
            assumed classes.

    Returns:
        The mapping. If one side has no names and the numbers of classes are equal, the classes are
        mapped in order.

    Raises:
        ValueError: If the numbers of classes differ and names are missing, or if the length of
            `weights_labels` is not the file's number of classes.
    """
    count = outputs - 1
    if weights_labels is not None and len(weights_labels) != count:
        raise ValueError(
            f"weights_labels has {len(weights_labels)} names, but the file has {count} classes: "
            "give one name for each class, without the background (the default for a .weights.h5 "
            "file is the labels of the model)"
        )
    background, first = (count, 0) if background_last else (0, 1)
    theirs = weights_labels or _CLASSES_BY_OUTPUTS.get(outputs)
    warning = ""
    if labels is not None and weights_labels is None and not (released and theirs):
        assumed = "the model's, in order" if theirs is None else f"{theirs[0]} ... {theirs[-1]}"
        warning = (
            f"the file does not name its {count} classes; they are assumed to be {assumed}: give "
            "weights_labels to be sure"
        )
    if labels is None and num_classes != count:
        labels = _CLASSES_BY_OUTPUTS.get(num_classes + 1)
    if num_classes == count and (
        labels is None or theirs is None or tuple(labels) == tuple(theirs)
    ):
        rows = [*range(first, first + count)]
        note = f"classes: all {count} classes of the file, in order"
        return ClassMatch((background, *rows), outputs, (), note, warning)
    if labels is None or theirs is None:
        missing = "weights_labels" if theirs is None else "labels to the model"
        raise ValueError(
            f"the file has {count} classes and the model {num_classes}: give {missing}, so that "
            "classes can be mapped by name"
        )
    places = {class_key(name): first + i for i, name in enumerate(unique_names(theirs))}
    rows = [places.get(class_key(name), -1) for name in unique_names(labels)]
    fresh = tuple(name for name, row in zip(labels, rows, strict=True) if row < 0)
    note = f"classes: mapped by name from {theirs[0]} ... {theirs[-1]}"
    return ClassMatch((background, *rows), outputs, fresh, note, warning)
