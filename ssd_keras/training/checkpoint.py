"""Writes and loads the checkpoint of a run. Writes are atomic, and the previous one is kept."""

import contextlib
import csv
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from ssd_keras.files import atomic, reading
from ssd_keras.model import SSD, load_model
from ssd_keras.training.optimizer import Solver, solver
from ssd_keras.training.recipe import Recipe

CHECKPOINT = "last.keras"  # weights, optimizer and iteration: a run resumes from it
PREVIOUS = "previous.keras"  # the checkpoint before it
BEST = "best.keras"  # without optimizer: the model of the highest validation AP, or the last one
HISTORY = "history.csv"
_PROGRESS = "ssd_keras_run.json"  # stored in the checkpoint, so that both are written together


class Checkpoint(keras.callbacks.Callback):
    """Writes `history.csv`, `best.keras` and then `last.keras` after each epoch of Keras.

    Each file is written completely or not at all.

    Args:
        run_dir: Folder of the run.
        model: The model to write. Default: the model that is trained.
        batches_before: Batches of the run before this call of `fit`.
    """

    def __init__(self, run_dir: Path, model: SSD | None = None, batches_before: int = 0) -> None:
        super().__init__()
        self.run_dir = run_dir
        self._saved = model
        self._batches = batches_before
        self._rows: list[dict[str, Any]] = []
        self._started = time.monotonic()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads the rows of `history.csv` up to the checkpoint; later rows will be replaced."""
        step = iterations(self.model)
        self._rows = [row for row in read_history(self.run_dir) if int(row["iteration"]) <= step]
        past = float(self._rows[-1]["seconds"]) if self._rows else 0.0
        self._started = time.monotonic() - past

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts all batches. `iterations` leaves out those that overflow (mixed_float16)."""
        self._batches += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the three files."""
        model = self._saved or self.model
        row = {
            "iteration": iterations(model),
            "seconds": round(time.monotonic() - self._started, 1),
            "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        previous = [float(r.get("val_mean_ap") or 0) for r in self._rows]
        self._rows.append(row)
        with atomic(self.run_dir / HISTORY) as path, path.open("w", newline="") as file:
            names = dict.fromkeys(name for r in self._rows for name in r)
            writer = csv.DictWriter(file, list(names))
            writer.writeheader()
            writer.writerows(self._rows)
        # `not <` instead of `>=`, because AP is NaN if all objects are difficult.
        if not row.get("val_mean_ap", 0.0) < np.nanmax([0.0, *previous]):
            with atomic(self.run_dir / BEST) as path, averaged(model):
                without_optimizer(model).save(path)
        with atomic(self.run_dir / CHECKPOINT) as path:
            model.save(path)
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(_PROGRESS, json.dumps({"batches": self._batches}))
            if (self.run_dir / CHECKPOINT).exists():
                os.replace(self.run_dir / CHECKPOINT, self.run_dir / PREVIOUS)


def read_history(run_dir: Path) -> list[dict[str, str]]:
    """Reads the rows of `history.csv`.

    Args:
        run_dir: Folder of the run.

    Returns:
        One dictionary per row, column name -> text. Empty if there is no file.

    Raises:
        ValueError: If the file is damaged.
    """
    path = run_dir / HISTORY
    if not path.exists():
        return []
    with reading(path, "delete it; only the past training curves are lost", fault="is damaged"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:  # checks the numbers before training
            int(row["iteration"]), float(row["seconds"]), float(row.get("val_mean_ap") or 0)
    return rows


def has_checkpoint(run_dir: Path) -> bool:
    """Returns whether a folder has a checkpoint, which may be damaged."""
    return any((run_dir / name).exists() for name in (CHECKPOINT, PREVIOUS))


def load_checkpoint(run_dir: Path, recipe: Recipe) -> tuple[SSD, int]:
    """Loads the last checkpoint, or the previous one if the last one is damaged or missing.

    Args:
        run_dir: Folder of the run, for which `has_checkpoint` is True.
        recipe: The resolved recipe of the run.

    Returns:
        The compiled model, and the number of completed iterations of the run. With mixed_float16,
        this number is larger than the optimizer's, which leaves out batches that overflow.

    Raises:
        FileNotFoundError: If `last.keras` is missing and there is no previous checkpoint.
        ValueError: If no checkpoint can be read.
    """
    last, previous = run_dir / CHECKPOINT, run_dir / PREVIOUS
    try:
        return _load(last, recipe)
    except (ValueError, FileNotFoundError) as error:
        if not previous.exists():
            raise
        model, done = _load(previous, recipe)
        logging.warning(
            "%s; the run resumes from %s, at iteration %d", error, previous, iterations(model)
        )
        return model, done


def _load(path: Path, recipe: Recipe) -> tuple[SSD, int]:
    batches = None
    if zipfile.is_zipfile(path):
        # Keras reads only parts of the file and does not compare the checksums.
        with zipfile.ZipFile(path) as archive:
            try:
                broken = archive.testzip()
                if _PROGRESS in archive.namelist():
                    batches = int(json.loads(archive.read(_PROGRESS))["batches"])
            except (zipfile.BadZipFile, OSError, EOFError) as error:
                raise ValueError(f"model {path} is damaged: {error}") from error
        if broken:
            raise ValueError(f"model {path} is damaged: {broken} has a wrong checksum")
    model = load_model(path, compile=True)
    if batches is None:  # a file of an earlier version, which saved at multiples of eval_every
        return model, -(-iterations(model) // recipe.eval_every) * recipe.eval_every
    return model, batches // recipe.accumulate


def iterations(model: keras.Model) -> int:
    """Returns the number of steps that the optimizer has made, with one or several replicas."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Context manager in which a model has the moving averages of its weights (`Recipe.ema`).

    The weights are restored at the end. Without `ema` the context manager does nothing.

    Args:
        model: A compiled model.
    """
    optimizer = solver(model.optimizer)
    if not (isinstance(optimizer, Solver) and optimizer.use_ema):
        yield
        return
    weights = [variable.numpy() for variable in model.trainable_variables]
    optimizer.assign_averages(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, weights, strict=True):
            variable.assign(value)


def without_optimizer(model: keras.Model) -> keras.Model:
    """Copies a model without its optimizer.

    A file of the copy has a third of the size of a file with Adam, or half of one with SGD.

    Args:
        model: A model of `ssd_vgg16`.

    Returns:
        The copy, not compiled.
    """
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy
