"""What the heads of an SSD in a file predict: for which default boxes, and which classes."""

import dataclasses
from collections.abc import Sequence

from ssd_keras.class_names import COCO_CLASSES, COCO_ID_NAMES, VOC_CLASSES, class_key, unique_names

_CLASSES_BY_OUTPUTS = {21: VOC_CLASSES, 81: COCO_CLASSES, 91: COCO_ID_NAMES}


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
    weights_labels: Sequence[str] | None,
    num_classes: int,
    labels: Sequence[str] | None,
    background_last: bool,
    released: bool = True,
) -> ClassMatch:
    """Finds each class of a model among those of a file, by name.

    Args:
        outputs: Outputs of the file for each box, background included.
        weights_labels: Names of its classes; 20, 80 and 90 classes are otherwise taken for VOC's,
            COCO's and COCO's category ids.
        num_classes: Of the model, without background.
        labels: Names of its classes, if it has them.
        background_last: Where the file's background is.
        released: Whether there are released weights with as many outputs, so that the names of
            these are to be expected.

    Raises:
        ValueError: If names are needed, but not known; if `weights_labels` has another length.
    """
    count = outputs - 1
    if weights_labels is not None and len(weights_labels) != count:
        raise ValueError(
            f"weights_labels has {len(weights_labels)} names, but the file has {count} classes"
        )
    background, first = (count, 0) if background_last else (0, 1)
    theirs = weights_labels or _CLASSES_BY_OUTPUTS.get(outputs)
    warning = ""
    if labels is not None and weights_labels is None and not (released and theirs):
        taken = "the model's, in its order" if theirs is None else f"{theirs[0]} ... {theirs[-1]}"
        warning = (
            f"the file does not name its {count} classes; they are taken for {taken}: give "
            "weights_labels to be sure"
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
        missing = "weights_labels" if theirs is None else "labels to the model"
        raise ValueError(
            f"it has {count} classes and the model {num_classes}: give {missing}, so that classes "
            "can be found by name"
        )
    places = {class_key(name): first + i for i, name in enumerate(unique_names(theirs))}
    rows = [places.get(class_key(name), -1) for name in unique_names(labels)]
    fresh = tuple(name for name, row in zip(labels, rows, strict=True) if row < 0)
    note = f"classes: found by name among {theirs[0]} ... {theirs[-1]}"
    return ClassMatch((background, *rows), outputs, fresh, note, warning)
