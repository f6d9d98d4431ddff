"""Report of a weights import."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class WeightReport:
    """The use of every tensor in a weights file and the state of every layer in the model.

    `str(report)` is a table for people to read.

    Attributes:
        path: Path of the file, or "imagenet".
        project: Project whose conventions the file follows, such as "torchvision".
        notes: Conventions that were detected and conversions that were made, one sentence each.
        warnings: Assumptions and gaps that need the user's attention, one sentence each.
        tensors: (name in the file, shape, use) for each tensor. The use is "used: ..." or
            "skipped: ...".
        layers: (name, state) for each layer of the model with weights. The state starts with
            "loaded", "sliced" (some classes were loaded) or "fresh" (newly initialized).
    """

    path: str
    project: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    tensors: tuple[tuple[str, tuple[int, ...], str], ...]
    layers: tuple[tuple[str, str], ...]

    @property
    def fresh(self) -> tuple[str, ...]:
        """Names of the layers that were newly initialized."""
        return tuple(name for name, state in self.layers if state.startswith("fresh"))

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the tensors in the file that were not used."""
        return tuple(name for name, _, use in self.tensors if use.startswith("skipped"))

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.project} weights"]
        lines += [f"  {note}" for note in self.notes]
        lines += ["", "  In the file:"]
        lines += _table((name, str(list(shape)), use) for name, shape, use in self.tensors)
        lines += ["", "  In the model:"]
        lines += _table(self.layers)
        lines += ["", f"  {self.summary}"]
        lines += [f"  WARNING: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """Numbers of tensors used and of layers loaded, sliced and fresh, in one line."""
        sliced = sum(state.startswith("sliced") for _, state in self.layers)
        loaded = len(self.layers) - sliced - len(self.fresh)
        used = len(self.tensors) - len(self.skipped)
        return (
            f"{used} of {len(self.tensors)} tensors used; "
            f"layers: {loaded} loaded, {sliced} sliced, {len(self.fresh)} fresh"
        )


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Formats rows as lines with aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "    "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def tensor_use(name: str, used: Mapping[str, str]) -> str:
    """Describes the use of a tensor of a file.

    Args:
        name: Name of the tensor in the file.
        used: Name in the file -> name in the model.
    """
    if "_mbox_priorbox/" in name:
        return "used: compared with the tiling"
    if name == "meta.mmdet_version":
        return "used: position of the background"
    return f"used: {used[name]}" if name in used else "skipped: unknown"


def some_names(names: Sequence[str]) -> str:
    """Lists up to three names and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
