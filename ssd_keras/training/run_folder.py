"""The folder of a run: which run it belongs to."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd_keras.files import atomic, reading, remove_leftovers
from ssd_keras.model import SSD
from ssd_keras.training.callbacks import CHECKPOINT
from ssd_keras.training.recipe import Recipe

RUN = "run.json"


def claim_folder(
    run_dir: Path,
    model: SSD,
    recipe: Recipe,
    records: Sequence[str | os.PathLike[str]],
    weights: str | os.PathLike[str] | None,
) -> None:
    """Assigns a folder to a run, or checks that it belongs to the run.

    A folder without a checkpoint may be assigned to another recipe: nothing is lost.

    Args:
        run_dir: The folder; made if it does not exist.
        model: The model of the run.
        recipe: The recipe of the run.
        records: The record sets of the run.
        weights: File of the initial weights, or None.

    Raises:
        ValueError: If the folder holds another run or other files, or `run.json` is damaged.
    """
    run = {
        "recipe": dataclasses.asdict(recipe),
        "records": [os.fspath(directory) for directory in records],
        "weights": os.fspath(weights) if weights else None,
        "precision": model.get_layer("conv1_1").dtype_policy.name,
        "labels": model.labels,
        "config": model.ssd_config.to_dict(),
        "parameters": model.count_params(),
    }
    run = json.loads(json.dumps(run))  # tuples become the lists that a file holds
    path = run_dir / RUN
    if run_dir.is_dir():
        remove_leftovers(run_dir)
    if path.exists():
        with reading(path, "choose another run_dir", fault="is damaged"):
            held = json.loads(path.read_text())
            differing = _differences(held, run)
        if differing and (run_dir / CHECKPOINT).exists():
            raise ValueError(
                f"run_dir (={run_dir}) holds a run with another {'; another '.join(differing)}: "
                "choose another folder, or repeat that run's arguments to resume it"
            )
        if not differing:
            return
    elif run_dir.exists() and any(run_dir.iterdir()):
        raise ValueError(
            f"run_dir (={run_dir}) holds files but no {RUN}: choose an empty or a new folder"
        )
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(run, indent=2))


def _differences(held: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """What of a run is not as its folder has it, with both values; a recipe field by field."""
    flat = [{**r, **{f"recipe {k}": v for k, v in r["recipe"].items()}} for r in (held, run)]
    keys = sorted(key for key in flat[1] if key != "recipe")
    return [
        f"{key} ({flat[0].get(key)}, not {flat[1][key]})"
        for key in keys
        if flat[0].get(key) != flat[1][key]
    ]
