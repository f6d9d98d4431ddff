"""Training as a run in a folder: the recipe, and a start that is also a resumption.

The k-th batch of a run is a function of (records, seed, k) and the k-th learning rate one of k, so
a run that is killed and started again ends with the same weights as one that was not.
"""

import dataclasses
import fnmatch
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ssd_keras import pipeline
from ssd_keras.augment import AUGMENTATIONS
from ssd_keras.callbacks import CHECKPOINT, Checkpoint, Guard, VOCEvaluation
from ssd_keras.files import atomic, remove_leftovers
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import load_model
from ssd_keras.optimizer import Adam, CaffeSGD, Schedule
from ssd_keras.records import read_card
from ssd_keras.weights import load_weights

RUN = "run.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. The defaults are the original's for VOC07+12 (`ssd_pascal.py`).

    Attributes:
        iterations: Steps of the optimizer in all.
        batch_size: Images a batch.
        accumulate: Batches whose gradients are averaged for one step, where the original's 32
            images do not fit at once (`iter_size` in `ssd_pascal.py`; as there, each batch is
            normalised by its own positives). On one device only.
        optimizer: "sgd" (`CaffeSGD`) or "adam".
        learning_rate: Rate after the warm-up.
        boundaries: Iterations at which the rate is divided by ten.
        cosine: Let the rate fall as half a cosine instead; `boundaries` play no part then.
        warmup: Iterations of linear warm-up from a tenth of the rate.
        momentum: Of SGD.
        weight_decay: Coupled L2 on all but biases, with SGD.
        clip_norm: Largest global norm of the gradients (of each replica), 0 for no limit.
        augmentation: Name of the augmentation variant.
        use_difficult: Whether objects marked difficult are ground truth: the original says yes for
            VOC, no for COCO.
        max_boxes: Objects an image is padded or cut to; None: the largest number in an image.
        freeze: Layers that do not learn: the paper's names or patterns, such as "conv1_*".
        eval_every: Iterations between two checkpoints and evaluations; divides `iterations`.
        seed: Of the initial weights, the order of images and the augmentation.
    """

    iterations: int = 120_000
    batch_size: int = 32
    accumulate: int = 1
    optimizer: str = "sgd"
    learning_rate: float = 1e-3
    boundaries: tuple[int, ...] = (80_000, 100_000)
    cosine: bool = False
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 0.0
    augmentation: str = "ssd"
    use_difficult: bool = True
    max_boxes: int | None = None
    freeze: tuple[str, ...] = ()
    eval_every: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "accumulate", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} (={getattr(self, name)}) must be at least 1")
        for name in ("warmup", "clip_norm", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} (={getattr(self, name)}) must not be negative")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate (={self.learning_rate}) must be above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum (={self.momentum}) must be in [0, 1)")
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation (={self.augmentation!r}) must be one of {', '.join(AUGMENTATIONS)}"
            )
        if self.iterations % self.eval_every:
            raise ValueError(
                f"iterations (={self.iterations}) must be a multiple of eval_every "
                f"(={self.eval_every})"
            )
        if self.optimizer not in ("sgd", "adam"):
            raise ValueError(f"optimizer (={self.optimizer!r}) must be 'sgd' or 'adam'")

    def make_optimizer(self) -> keras.optimizers.Optimizer:
        """The optimizer with its schedule."""
        schedule = Schedule(
            self.learning_rate,
            () if self.cosine else self.boundaries,
            warmup=self.warmup,
            cosine_iterations=self.iterations if self.cosine else 0,
        )
        options: dict[str, Any] = {
            "global_clipnorm": self.clip_norm or None,
            "gradient_accumulation_steps": self.accumulate if self.accumulate > 1 else None,
        }
        if self.optimizer == "adam":
            return Adam(learning_rate=schedule, **options)
        return CaffeSGD(schedule, self.momentum, self.weight_decay, **options)


def train(
    model: keras.Model,
    recipe: Recipe,
    run_dir: str | os.PathLike[str],
    records: pipeline.Records,
    *,
    val_records: str | os.PathLike[str] | None = None,
    weights: Mapping[str, Any] | None = None,
    gradient_limit: float = 1e6,
    service: str | None = None,
    jit_compile: bool | str = "auto",
) -> keras.Model:
    """Trains a model of `ssd_vgg16`, or goes on with the run that `run_dir` holds.

    Every `recipe.eval_every` iterations it writes the checkpoint, a row of `history.csv`,
    TensorBoard's scalars and, with `val_records`, the VOC AP on them.

    Args:
        model: A fresh model. If the run is resumed, only its configuration is looked at.
        recipe: How to train.
        run_dir: Folder of the run; made if need be.
        records: Record sets to train on.
        val_records: Record set to measure VOC AP on, or None.
        weights: Arguments of `load_weights` for a new run, `path` at least; its report goes to
            `weights.txt`.
        gradient_limit: Stop when the norm of the gradients, before clipping, is above it.
        service: Address of a `tf.data` service (see `train_dataset`) that makes the batches; a
            resumed run then sees other ones, and no images can be named.
        jit_compile: As in `keras.Model.compile`.

    Returns:
        The trained model, as saved in `last.keras`.

    Raises:
        ValueError: If `run_dir` holds something else than this run, or the labels of records and
            model differ.
        FloatingPointError: If the loss or the gradients run away; the message names the images.
    """
    run_dir = Path(run_dir)
    records = [records] if isinstance(records, (str, os.PathLike)) else list(records)
    config = model.get_layer("predictions").ssd_config
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if recipe.accumulate > 1 and replicas > 1:
        raise ValueError(
            f"accumulate (={recipe.accumulate}) must be 1 on several devices (here {replicas}): "
            "each of them adds its share of the batch already"
        )
    if replicas > 1 and model.dtype_policy.name == "mixed_float16":
        raise ValueError(
            f"precision (=mixed_float16) must be another one on several devices (here {replicas}): "
            "Keras looks for overflow on the first of them only: take mixed_bfloat16 or float32"
        )
    _check_labels(model, [*records, val_records] if val_records else records)
    if val_records and model.get_layer("predictions").labels is None:
        raise ValueError("val_records need class names in the model: give ssd_vgg16 its labels")
    _claim(run_dir, model, recipe, records, weights)
    if (run_dir / CHECKPOINT).exists():
        model = load_model(run_dir / CHECKPOINT, compile=True)
    else:
        if weights:
            report = load_weights(model, **weights)
            with atomic(run_dir / "weights.txt") as temporary:
                temporary.write_text(f"{report}\n")
        _freeze(model, recipe.freeze)
        loss = MultiBoxLoss(config)
        model.compile(recipe.make_optimizer(), loss=loss, jit_compile=jit_compile)
    # Up: batches that overflow in mixed_float16 are no steps, and none are made up for.
    spans = -(-int(model.optimizer.iterations) // recipe.eval_every)
    first_batch = spans * recipe.eval_every * recipe.accumulate

    dataset = pipeline.train_dataset(
        records,
        config,
        recipe.batch_size,
        augmentation=recipe.augmentation,
        seed=recipe.seed,
        use_difficult=recipe.use_difficult,
        max_boxes=recipe.max_boxes,
        service=service,
        start_step=first_batch,
        repeat=True,
    )
    callbacks: list[keras.callbacks.Callback] = [
        Guard(
            gradient_limit, [] if service else records, recipe.batch_size, recipe.seed, first_batch
        ),
        # Before those that write: they find its value in the logs.
        *([VOCEvaluation(model, val_records, recipe.batch_size)] if val_records else []),
        Checkpoint(run_dir),
        keras.callbacks.TensorBoard(run_dir / "tensorboard", write_graph=False),
    ]
    # In Keras's words an epoch is the span between two checkpoints.
    model.fit(
        dataset,
        steps_per_epoch=recipe.eval_every * recipe.accumulate,
        initial_epoch=spans,
        epochs=recipe.iterations // recipe.eval_every,
        shuffle=False,  # the dataset does it
        callbacks=callbacks,
    )
    return model


def _check_labels(model: keras.Model, records: Sequence[str | os.PathLike[str]]) -> None:
    head = model.get_layer("predictions")
    for directory in records:
        card = read_card(directory)
        labels = tuple(card.labels)
        if not card.num_objects:
            raise ValueError(f"records {directory} hold no object to learn from or to measure on")
        if labels != (head.labels or labels) or len(labels) != head.num_classes:
            raise ValueError(
                f"records {directory} have the {len(labels)} labels {labels}, but the model was "
                f"built for num_classes (={head.num_classes}), labels {head.labels}: they must be "
                "the same, in the same order"
            )


def _freeze(model: keras.Model, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        layers = [layer for layer in model.layers if fnmatch.fnmatch(layer.name, pattern)]
        if not layers:
            names = ", ".join(layer.name for layer in model.layers if layer.weights)
            raise ValueError(f"freeze (={pattern!r}) matches no layer; there are {names}")
        for layer in layers:
            layer.trainable = False
    if not model.trainable_weights:
        raise ValueError(f"freeze (={tuple(patterns)}) leaves nothing that learns")


def _claim(
    run_dir: Path,
    model: keras.Model,
    recipe: Recipe,
    records: Sequence[str | os.PathLike[str]],
    weights: Mapping[str, Any] | None,
) -> None:
    """Makes the folder this run's, or sees that it is.

    Until there is a checkpoint nothing is lost: another recipe may take the folder over.
    """
    head = model.get_layer("predictions")
    run = {
        "recipe": dataclasses.asdict(recipe),
        "records": [os.fspath(directory) for directory in records],
        "weights": os.fspath(weights["path"]) if weights else None,
        "precision": model.get_layer("conv1_1").dtype_policy.name,
        "labels": head.labels,
        "config": head.ssd_config.to_dict(),
        "parameters": model.count_params(),
    }
    run = json.loads(json.dumps(run))  # tuples become the lists that a file holds
    path = run_dir / RUN
    if run_dir.is_dir():
        remove_leftovers(run_dir)
    if path.exists():
        try:
            held = json.loads(path.read_text())
            differing = _differences(held, run)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): choose another run_dir") from error
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
