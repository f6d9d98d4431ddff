"""The folder of a run: the record of its settings (`run.json`), and a lock for one process."""

import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from ssd_keras.config import SSDConfig
from ssd_keras.files import atomic, reading, remove_leftovers
from ssd_keras.model import SSD
from ssd_keras.training.checkpoint import has_checkpoint
from ssd_keras.training.recipe import Recipe

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RUN = "run.json"
LOCK = "run.lock"
# Fields that a resumed run may change. They change the length of the run, not its model or data.
_EXTENDABLE = {"recipe iterations", "recipe eval_every"}


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Context manager that locks a run folder for this process.

    The operating system removes the lock when the process ends. If the file system has no locks, a
    warning is logged.

    Args:
        run_dir: The folder; it is created if it is missing.

    Raises:
        ValueError: If another process has the lock.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOCK).open("a+") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f"run_dir (={run_dir}) is in use by {file.read().strip() or 'another process'}: "
                "wait until that run has ended, stop it, or choose another folder"
            ) from error
        except OSError as error:  # a file system without locks
            logging.warning(
                "%s cannot be locked (%s): do not start a second run in it", run_dir, error
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def claim_folder(
    run_dir: Path,
    model: SSD,
    recipe: Recipe,
    records: Sequence[str | os.PathLike[str]],
    weights: str | os.PathLike[str] | None,
    name: str | None = None,
) -> None:
    """Assigns a folder to a run by writing `run.json`, or checks that it belongs to the run.

    A folder without a checkpoint may be assigned to another run, because nothing is lost. A resumed
    run may have other `iterations`, to continue after its end, and another `eval_every`.

    Args:
        run_dir: The folder; it is created if it is missing.
        model: The model of the run.
        recipe: The resolved recipe of the run.
        records: The record sets of the run.
        weights: File of the initial weights, or None.
        name: Name of the recipe, or None.

    Raises:
        ValueError: If the folder holds another run or other files, or `run.json` is damaged.
    """
    run = {
        "name": name,
        "recipe": dataclasses.asdict(recipe),
        "records": [os.fspath(directory) for directory in records],
        "weights": os.fspath(weights) if weights else None,
        "precision": model.get_layer("conv1_1").dtype_policy.name,
        "labels": model.labels,
        "config": model.ssd_config.to_dict(),
        "parameters": model.count_params(),
    }
    run = json.loads(json.dumps(run))  # converts tuples to lists, as in a JSON file
    path = run_dir / RUN
    if run_dir.is_dir():
        remove_leftovers(run_dir)
    if path.exists():
        with reading(path, "choose another run_dir", fault="is damaged"):
            differing = _differences(json.loads(path.read_text()), run)
        refused = [text for key, text in differing.items() if key not in _EXTENDABLE]
        if refused and has_checkpoint(run_dir):
            raise ValueError(
                f"run_dir (={run_dir}) holds a run with another {'; another '.join(refused)}: "
                "choose another folder, or repeat that run's arguments to resume it"
            )
        if not differing:
            return
    elif run_dir.exists() and {p.name for p in run_dir.iterdir()} - {LOCK}:
        raise ValueError(
            f"run_dir (={run_dir}) holds files but no {RUN}: choose an empty or a new folder"
        )
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(run, indent=2))


def _differences(held: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
    """Compares the settings in `run.json` with those of a run.

    Args:
        held: The content of `run.json`. Fields that an earlier version did not have count as their
            defaults.
        run: The settings of the run.

    Returns:
        Name of each differing setting -> name and both values as text. Fields of the recipe are
        compared one by one, with names such as "recipe seed".
    """
    held = {
        **held,
        "config": json.loads(json.dumps(SSDConfig.from_dict(held["config"]).to_dict())),
        "recipe": {**json.loads(json.dumps(dataclasses.asdict(Recipe()))), **held["recipe"]},
    }
    flat = [{**r, **{f"recipe {k}": v for k, v in r["recipe"].items()}} for r in (held, run)]
    keys = sorted(key for key in flat[1] if key not in ("recipe", "name"))
    return {
        key: f"{key} ({flat[0].get(key)}, not {flat[1][key]})"
        for key in keys
        if flat[0].get(key) != flat[1][key]
    }
