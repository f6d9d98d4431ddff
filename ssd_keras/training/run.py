"""Training as a run in a folder: the recipe, and a start that is also a resumption.

The k-th batch of a run is a function of (records, seed, k) and the k-th learning rate one of k, so
a run that is killed and started again ends with the same weights as one that was not.
"""

import fnmatch
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from absl import logging

from ssd_keras.config import SSDConfig
from ssd_keras.data import pipeline
from ssd_keras.data.card import read_card
from ssd_keras.files import atomic
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import SSD, load_model
from ssd_keras.training.callbacks import CHECKPOINT, Checkpoint, Guard, VOCEvaluation
from ssd_keras.training.recipe import Recipe
from ssd_keras.training.run_folder import claim_folder
from ssd_keras.weights.load import load_weights


def train(
    model: SSD,
    recipe: Recipe,
    run_dir: str | os.PathLike[str],
    records: pipeline.Records,
    *,
    val_records: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    weights_project: str | None = None,
    weights_labels: Sequence[str] | None = None,
    weights_config: SSDConfig | None = None,
    gradient_limit: float = 1e6,
    service: str | None = None,
    jit_compile: bool | str = "auto",
) -> SSD:
    """Trains a model of `ssd_vgg16`, or goes on with the run that `run_dir` holds.

    Every `recipe.eval_every` iterations it writes the checkpoint, a row of `history.csv`,
    TensorBoard's scalars and, with `val_records`, the VOC AP on them.

    Args:
        model: A fresh model. If the run is resumed, only its configuration is looked at.
        recipe: How to train.
        run_dir: Folder of the run; made if need be.
        records: Record sets to train on.
        val_records: Record set to measure VOC AP on, or None.
        weights: File of the initial weights of a new run, or None; see `load_weights`, as the next
            three. Its report is written to `weights.txt`.
        weights_project: Project of that file; detected by default.
        weights_labels: Class names of that file.
        weights_config: Tiling of that file.
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
    config = model.ssd_config
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
    if val_records and model.labels is None:
        raise ValueError("val_records need class names in the model: give ssd_vgg16 its labels")
    claim_folder(run_dir, model, recipe, records, weights)
    if (run_dir / CHECKPOINT).exists():
        model = load_model(run_dir / CHECKPOINT, compile=True)
    else:
        if weights:
            report = load_weights(
                model,
                weights,
                weights_project=weights_project,
                weights_labels=weights_labels,
                weights_config=weights_config,
            )
            with atomic(run_dir / "weights.txt") as temporary:
                temporary.write_text(f"{report}\n")
        _freeze(model, recipe.freeze)
        loss = MultiBoxLoss(config)
        model.compile(recipe.make_optimizer(), loss=loss, jit_compile=jit_compile)
    # Round up: overflowed batches (mixed_float16) don't advance `iterations` and aren't replayed.
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
        *_tensorboard(run_dir),
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


def _tensorboard(run_dir: Path) -> list[keras.callbacks.Callback]:
    """TensorBoard's callback, if TensorBoard is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        logging.warning("no TensorBoard logs: pip install 'ssd-keras[plots]' writes them")
        return []
    return [keras.callbacks.TensorBoard(run_dir / "tensorboard", write_graph=False)]


def _check_labels(model: SSD, records: Sequence[str | os.PathLike[str]]) -> None:
    for directory in records:
        card = read_card(directory)
        labels = tuple(card.labels)
        if not card.num_objects:
            raise ValueError(f"records {directory} hold no object to learn from or to measure on")
        if labels != (model.labels or labels) or len(labels) != model.num_classes:
            raise ValueError(
                f"records {directory} have the {len(labels)} labels {labels}, but the model was "
                f"built for num_classes (={model.num_classes}), labels {model.labels}: they must "
                "be the same, in the same order"
            )


def _freeze(model: SSD, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        layers = [layer for layer in model.layers if fnmatch.fnmatch(layer.name, pattern)]
        if not layers:
            names = ", ".join(layer.name for layer in model.layers if layer.weights)
            raise ValueError(f"freeze (={pattern!r}) matches no layer; there are {names}")
        for layer in layers:
            layer.trainable = False
    if not model.trainable_weights:
        raise ValueError(f"freeze (={tuple(patterns)}) leaves nothing that learns")
