"""What an import of weights did, for people to read."""

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, slots=True)
class WeightReport:
    """What became of every tensor of a weights file and of every layer of the model.

    `str()` of it is a table.

    Attributes:
        path: The file, or "imagenet".
        project: Whose naming and conventions the file follows, such as "torchvision".
        notes: What was understood and adapted, one sentence each.
        warnings: What the reader should not overlook, one sentence each.
        tensors: (name in the file, shape, use) of every tensor; use is "used: <ours>" or
            "skipped: <reason>".
        layers: (name, state) of every layer of the model that has weights; the state begins with
            "loaded", "sliced" or "fresh" (not in the file: started anew).
    """

    path: str
    project: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    tensors: tuple[tuple[str, tuple[int, ...], str], ...]
    layers: tuple[tuple[str, str], ...]

    @property
    def fresh(self) -> tuple[str, ...]:
        """Names of the layers that nothing was loaded into."""
        return tuple(name for name, state in self.layers if state.startswith("fresh"))

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the tensors of the file that were not used."""
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
        """One line of counts."""
        sliced = sum(state.startswith("sliced") for _, state in self.layers)
        loaded = len(self.layers) - sliced - len(self.fresh)
        used = len(self.tensors) - len(self.skipped)
        return (
            f"{used} of {len(self.tensors)} tensors used; "
            f"layers: {loaded} loaded, {sliced} sliced, {len(self.fresh)} fresh"
        )


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Lines with the columns aligned."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "    "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
