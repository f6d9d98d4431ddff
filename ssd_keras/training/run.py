"""Starts or resumes a training run in a folder.

Batch k of a run depends only on the record sets, the seed and k, and learning rate k only on the
schedule and k. A run that was killed and started again therefore ends with the same weights as an
uninterrupted run.
"""

import contextlib
import fnmatch
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ssd_keras.config import SSDConfig
from ssd_keras.data import pipeline
from ssd_keras.data.card import read_card
from ssd_keras.data.epochs import Records
from ssd_keras.files import atomic
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import SSD
from ssd_keras.training.accumulation import weigh_batches
from ssd_keras.training.callbacks import Guard, Progress
from ssd_keras.training.checkpoint import Checkpoint, has_checkpoint, load_checkpoint
from ssd_keras.training.devices import (
    distributed,
    is_multiworker,
    trainer,
    wait_for_workers,
    worker,
)
from ssd_keras.training.interruption import Interrupted, Interruption
from ssd_keras.training.recipe import Recipe, pieces
from ssd_keras.training.run_folder import claim_folder, locked
from ssd_keras.training.validation import EVALUATIONS, tensorboard
from ssd_keras.weights.load import load_weights


def train(
    model: SSD,
    recipe: Recipe,
    run_dir: str | os.PathLike[str],
    records: Records,
    *,
    val_records: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    weights_project: str | None = None,
    weights_labels: Sequence[str] | None = None,
    weights_config: SSDConfig | None = None,
    gradient_limit: float = 1e6,
    service: str | None = None,
    jit_compile: bool | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    name: str | None = None,
) -> SSD:
    """Trains a model of `ssd_vgg16`, or resumes the run in `run_dir`.

    Every `recipe.eval_every` iterations the run writes the checkpoint, a row of `history.csv` and
    TensorBoard's scalars. With `val_records` it also measures average precision, and TensorBoard
    shows pictures with detections.

    To train on several devices, create the model in the scope of a `tf.distribute` strategy. With
    several workers, each worker calls this function with the same arguments. Only the chief writes
    files.

    Args:
        model: A new model. A resumed run uses only its config, labels, dtype policy and strategy;
            the weights are those of the checkpoint.
        recipe: The training settings.
        run_dir: Folder of the run; it is created if it is missing.
        records: Folders of the record sets to train on, or one folder.
        val_records: Folder of the record set to measure average precision on, or None.
        weights: File of the initial weights of a new run, or None; see `load_weights`. The report
            of `load_weights` is written to `weights.txt`.
        weights_project: Project whose tensor names the file has; see `load_weights`.
        weights_labels: Class names of the file; see `load_weights`.
        weights_config: Tiling of the file; see `load_weights`.
        gradient_limit: The run stops if the norm of the gradients, before clipping, is above this
            value.
        service: Address of a `tf.data` service that makes the batches (see `train_dataset`), or
            None. With a service, a resumed run sees other batches than an uninterrupted run, and
            the error message of a diverging run names no images.
        jit_compile: As in `keras.Model.compile`.
        callbacks: Further Keras callbacks. An epoch of Keras is the span between two checkpoints.
            The run may call `fit` several times.
        name: Name of the recipe, for `run.json`.

    Returns:
        The trained model, as saved in `last.keras`.

    Raises:
        ValueError: If `run_dir` holds another run or other files, another process uses it, the
            labels of the records and the model differ, or an argument does not fit the devices.
        FileNotFoundError: If a record set or `weights` does not exist.
        FloatingPointError: If the loss or the gradients diverge. The message names the images.
        Interrupted: After Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    run_dir = Path(run_dir)
    records = [records] if isinstance(records, (str, os.PathLike)) else list(records)
    strategy = model.distribute_strategy
    _check_devices(model, recipe, strategy)
    num_images = _count_images(model, records)
    if val_records:
        _count_images(model, [val_records])
    if val_records and model.labels is None:
        raise ValueError("val_records need class names in the model: give ssd_vgg16 its labels")
    recipe = recipe.resolved(num_images)
    chief = worker(strategy)[0] == 0
    interruption = Interruption()
    with contextlib.ExitStack() as stack:
        if chief:
            stack.enter_context(locked(run_dir))
            claim_folder(run_dir, model, recipe, records, weights, name)
        done, stopped_at = 0, None
        with strategy.scope():
            if has_checkpoint(run_dir):
                model, done = load_checkpoint(run_dir, recipe)
            elif weights:
                report = load_weights(
                    model,
                    weights,
                    weights_project=weights_project,
                    weights_labels=weights_labels,
                    weights_config=weights_config,
                )
                if chief:
                    with atomic(run_dir / "weights.txt") as temporary:
                        temporary.write_text(f"{report}\n")
        evaluation = None
        if val_records and chief:
            measure = EVALUATIONS[recipe.metric]
            evaluation = measure(model, val_records, recipe.batch_size, interruption)
        board = tensorboard(run_dir / "tensorboard", evaluation) if chief else []
        stack.enter_context(interruption.caught())
        for first, length, spans in pieces(done, recipe):
            if first in (done, recipe.unfreeze_at):
                with strategy.scope():
                    _compile(model, recipe, first, jit_compile)
            first_batch = first * recipe.accumulate
            dataset = _dataset(model, recipe, records, strategy, first_batch, service)
            guard = Guard(
                gradient_limit,
                [] if service else records,
                recipe.batch_size,
                recipe.seed,
                first_batch,
                accumulate=recipe.accumulate,
                interruption=interruption,
                several_workers=is_multiworker(strategy),
            )
            writers: list[keras.callbacks.Callback] = []
            if chief:
                writers = [
                    # First, because the other callbacks read its results from the logs.
                    *([evaluation] if evaluation else []),
                    Progress(
                        recipe.iterations,
                        first,
                        recipe.batch_size,
                        recipe.accumulate,
                        is_multiworker(strategy),
                    ),
                    Checkpoint(run_dir, model, first_batch),
                    *board,
                ]
            # An epoch of Keras is the span between two checkpoints.
            trainer(model, strategy).fit(
                dataset,
                steps_per_epoch=length * recipe.accumulate,
                initial_epoch=first // recipe.eval_every,
                epochs=first // recipe.eval_every + spans,
                shuffle=False,  # the dataset is shuffled already
                verbose=0,  # `Progress` shows the progress
                callbacks=[guard, *writers, *callbacks],
            )
            if guard.stopped:
                stopped_at = guard.iteration
                break
        wait_for_workers(strategy)
    if stopped_at is not None and stopped_at < recipe.iterations:
        raise Interrupted(
            interruption.number or signal.SIGTERM,  # 0: the signal went to another worker
            f"the checkpoint of iteration {stopped_at} of {recipe.iterations} is in {run_dir}; the "
            "same command resumes the run",
        )
    return model


def _check_devices(model: SSD, recipe: Recipe, strategy: tf.distribute.Strategy) -> None:
    replicas = strategy.num_replicas_in_sync
    if recipe.accumulate > 1 and replicas > 1:
        raise ValueError(
            f"accumulate (={recipe.accumulate}) must be 1 on several devices (here {replicas}): "
            "the devices already divide the batch among them"
        )
    if replicas > 1 and model.dtype_policy.name == "mixed_float16":
        raise ValueError(
            f"precision (=mixed_float16) is not allowed on several devices (here {replicas}), "
            "because Keras checks for overflow on the first device only: use mixed_bfloat16 or "
            "float32"
        )
    if recipe.batch_size % replicas:
        raise ValueError(
            f"batch_size (={recipe.batch_size}) must be a multiple of the number of devices "
            f"({replicas}): each device gets the same number of images"
        )


def _count_images(model: SSD, records: Sequence[str | os.PathLike[str]]) -> int:
    """Checks that record sets have objects and the model's labels, and counts their images."""
    count = 0
    for directory in records:
        card = read_card(directory)
        labels = tuple(card.labels)
        if not card.num_objects:
            raise ValueError(f"records {directory} contain no objects: use other records")
        if labels != (model.labels or labels) or len(labels) != model.num_classes:
            raise ValueError(
                f"records {directory} have the {len(labels)} labels {labels}, but the model was "
                f"built for num_classes (={model.num_classes}), labels {model.labels}: both must "
                "have the same labels in the same order"
            )
        count += card.num_images
    return count


def _compile(model: SSD, recipe: Recipe, iteration: int, jit_compile: bool | str) -> None:
    """Compiles a new or resumed model. A resumed model keeps the state of its optimizer.

    A resumed run, too, creates the optimizer from the recipe: the recipe may have more iterations
    than before, and layers that were frozen need optimizer state.
    """
    old = _state(model.optimizer) if model.compiled else {}
    unfrozen = bool(recipe.unfreeze_at) and iteration >= recipe.unfreeze_at
    _freeze(model, () if unfrozen else recipe.freeze)
    loss = MultiBoxLoss(model.ssd_config, border_boxes=recipe.border_boxes)
    model.compile(recipe.make_optimizer(), loss=loss, jit_compile=jit_compile)
    model.optimizer.build(model.trainable_variables)
    for name, variable in _state(model.optimizer).items():
        if name in old:
            variable.assign(keras.ops.convert_to_numpy(old[name]))


def _state(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Returns the variables of an optimizer by names that equal optimizers have in common.

    Keras numbers the optimizers of a process in the names of their variables, for example
    "adam_2/conv1_1_kernel_momentum". The result has an index that starts at 0 for each optimizer
    instead. A `LossScaleOptimizer` also has the variables of the optimizer that it wraps.
    """
    prefixes: dict[str, int] = {}
    state = {}
    for variable in optimizer.variables:
        prefix, _, name = variable.path.partition("/")
        state[f"{prefixes.setdefault(prefix, len(prefixes))}/{name}"] = variable
    return state


def _freeze(model: SSD, patterns: Sequence[str]) -> None:
    for layer in model.layers:
        layer.trainable = True
    for pattern in patterns:
        layers = [layer for layer in model.layers if fnmatch.fnmatch(layer.name, pattern)]
        if not layers:
            names = ", ".join(layer.name for layer in model.layers if layer.weights)
            raise ValueError(f"freeze (={pattern!r}) matches no layer; the layers are {names}")
        for layer in layers:
            layer.trainable = False
    if not model.trainable_weights:
        raise ValueError(f"freeze (={tuple(patterns)}) leaves nothing that learns")


def _dataset(
    model: SSD,
    recipe: Recipe,
    records: Sequence[str | os.PathLike[str]],
    strategy: tf.distribute.Strategy,
    first_batch: int,
    service: str | None,
) -> Any:
    """Creates the batches for `fit`, beginning with batch `first_batch` of the run."""
    config = model.ssd_config

    def make(index: int, workers: int) -> tf.data.Dataset:
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
            part=(index, workers),
        )
        local = strategy.num_replicas_in_sync // workers
        if workers > 1 and local > 1:
            dataset = dataset.rebatch(recipe.batch_size // workers // local)
        if recipe.accumulate > 1 and recipe.normalize == "step":
            dataset = weigh_batches(dataset, recipe.accumulate, config)
        return dataset

    return distributed(make, strategy)
