"""What happens between the iterations of a run: guard, evaluation, checkpoint."""

import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ssd_keras.data import pipeline
from ssd_keras.evaluation.voc import voc_average_precision
from ssd_keras.files import atomic, reading
from ssd_keras.inference.detector import keras_detector
from ssd_keras.inference.record_sets import detect_records

CHECKPOINT = "last.keras"  # weights, optimizer and iteration: what a run resumes from
BEST = "best.keras"  # weights only: those of the highest validation AP, or the last ones
HISTORY = "history.csv"


class Guard(keras.callbacks.Callback):
    """Stops when the loss or the gradients run away, and names the images of that batch.

    Nothing is lost: the last checkpoint was written before.

    Args:
        gradient_limit: Largest norm of the gradients.
        records: Record sets of the run, to name the images; none if their order is not fixed.
        batch_size: The run's, likewise.
        seed: The run's, likewise.
        first_batch: Which of the run's batches comes first.
    """

    def __init__(
        self,
        gradient_limit: float,
        records: Sequence[str | os.PathLike[str]],
        batch_size: int,
        seed: int,
        first_batch: int = 0,
    ) -> None:
        super().__init__()
        self.gradient_limit = gradient_limit
        self.records = records
        self.batch_size = batch_size
        self.seed = seed
        self._largest = 0.0
        self._next_batch = first_batch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Forgets the last span's largest norm."""
        self._largest = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the batch's loss and gradient norm."""
        number, self._next_batch = self._next_batch, self._next_batch + 1
        loss = float((logs or {}).get("loss", 0.0))
        # Mixed precision puts an optimizer that scales the loss around ours.
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        norm = float(optimizer.gradient_norm.numpy())
        self._largest = max(self._largest, norm)
        if np.isfinite(loss) and norm <= self.gradient_limit:
            return
        images = ["unknown"]
        if self.records:
            images = pipeline.batch_image_ids(self.records, self.batch_size, self.seed, number)
        raise FloatingPointError(
            f"batch {number}: mean loss since the last checkpoint (={loss:g}), gradient norm "
            f"(={norm:g}, limit {self.gradient_limit:g}); images of the batch: "
            f"{', '.join(images)}. Look at them (data/preview.py), or start anew with a smaller "
            "learning_rate, a warmup or clip_norm"
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the largest norm of the span to the logs."""
        if logs is not None:
            logs["gradient_norm"] = self._largest


class VOCEvaluation(keras.callbacks.Callback):
    """Adds `val_mean_ap`, the 11-point VOC AP on a record set, to the logs of every span.

    Args:
        model: The model that is trained.
        records: The record set.
        batch_size: Images at once.
    """

    def __init__(
        self, model: keras.Model, records: str | os.PathLike[str], batch_size: int
    ) -> None:
        super().__init__()
        self.detector = keras_detector(model)
        self.records = records
        self.batch_size = batch_size

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures."""
        detections, samples, _ = detect_records(self.detector, self.records, self.batch_size)
        result = voc_average_precision(detections, samples, self.detector.labels)
        if logs is not None:
            logs["val_mean_ap"] = result.mean_ap_11_point


class Checkpoint(keras.callbacks.Callback):
    """Writes `history.csv`, `best.keras` and, last, `last.keras`; each one whole or not at all.

    Args:
        run_dir: Folder of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.run_dir = run_dir
        self._rows: list[dict[str, Any]] = []
        self._started = time.monotonic()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes up the rows of the run so far; those after its checkpoint will come again."""
        step = int(self.model.optimizer.iterations)
        path = self.run_dir / HISTORY
        if path.exists():
            with reading(path, "delete it; only the curve up to here is lost", fault="is damaged"):
                with path.open(newline="") as file:
                    rows = list(csv.DictReader(file))
                # Every number is converted here, so that a damaged one is found before training.
                self._rows = [
                    row
                    | {"seconds": float(row["seconds"])}
                    | {k: float(row[k]) for k in ("val_mean_ap",) if row.get(k)}
                    for row in rows
                    if int(row["iteration"]) <= step
                ]
        past = self._rows[-1]["seconds"] if self._rows else 0.0
        self._started = time.monotonic() - past

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes all three."""
        optimizer = self.model.optimizer
        row = {
            "iteration": int(optimizer.iterations),
            "seconds": round(time.monotonic() - self._started, 1),
            "learning_rate": float(optimizer.learning_rate),
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        previous = [float(r.get("val_mean_ap") or 0) for r in self._rows]
        self._rows.append(row)
        with atomic(self.run_dir / HISTORY) as path, path.open("w", newline="") as file:
            names = dict.fromkeys(name for r in self._rows for name in r)
            writer = csv.DictWriter(file, list(names))
            writer.writeheader()
            writer.writerows(self._rows)
        # Not "at least": a validation set of difficult objects only has the AP NaN.
        if not row.get("val_mean_ap", 0.0) < np.nanmax([0.0, *previous]):
            with atomic(self.run_dir / BEST) as path:
                without_optimizer(self.model).save(path)
        with atomic(self.run_dir / CHECKPOINT) as path:
            self.model.save(path)


def without_optimizer(model: keras.Model) -> keras.Model:
    """A copy of a model that is not compiled: a third of the size with Adam, half with SGD."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy
