"""Training on several devices and several machines with `tf.distribute`."""

import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ssd_keras.model import SSD

STRATEGIES = ("none", "mirrored", "multiworker")


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Creates the `tf.distribute` strategy of a run.

    Args:
        name: "none" (one device), "mirrored" (all GPUs of this machine, or all its logical CPU
            devices if it has no GPU) or "multiworker" (all workers that the environment variable
            `TF_CONFIG` lists; the call waits until they have started).

    Returns:
        The strategy; for "none" the default strategy of TensorFlow.

    Raises:
        ValueError: If the name is unknown, or `TF_CONFIG` is missing or malformed.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        logical = tf.config.list_logical_devices
        return tf.distribute.MirroredStrategy(
            [device.name for device in logical("GPU") or logical("CPU")]
        )
    if name != "multiworker":
        raise ValueError(f"strategy (={name!r}) must be one of {', '.join(STRATEGIES)}")
    _check_cluster(os.environ.get("TF_CONFIG", ""))
    return tf.distribute.MultiWorkerMirroredStrategy()


def _check_cluster(text: str) -> None:
    """Raises an error if `TF_CONFIG` lists no workers: TensorFlow would train on one machine."""
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
    example += '"index": 0}}'
    try:
        config = json.loads(text)
        known = bool(config["cluster"]["worker"]) and config["task"]["index"] >= 0
    except (ValueError, TypeError, LookupError):
        known = False
    if not known:
        raise ValueError(
            f"TF_CONFIG (={text!r}) must list the workers and the task of this process, such as "
            f"{example}"
        )


def is_multiworker(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy has several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns the index of this process among the workers, and the number of workers.

    The chief has index 0. Without other processes the result is (0, 1).

    Args:
        strategy: The strategy of the run.
    """
    if not is_multiworker(strategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    tasks = resolver.cluster_spec().as_dict()
    chiefs = len(tasks.get("chief", ()))
    index = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return index, chiefs + len(tasks.get("worker", ()))


def trainer(model: SSD, strategy: tf.distribute.Strategy) -> SSD:
    """Returns a model whose `fit` works under a strategy.

    In Keras 3, `fit` fails with several workers (keras-team/keras#20585), for two reasons. It
    traces the model on values of all replicas; it does not if the model was created outside the
    scope of the strategy. It also reduces logs that have no batch axis; this function adds an axis.

    Args:
        model: A compiled and built model, created in the scope of the strategy.
        strategy: The strategy of the run.

    Returns:
        With several workers, another model with the same layers, optimizer and loss; otherwise
        `model`.
    """
    if not is_multiworker(strategy):
        return model

    class SeveralWorkers(SSD):
        distribute_strategy = property(lambda self: strategy)

        def train_step(self, data: Any) -> dict[str, tf.Tensor]:
            logs = super().train_step(data)
            return {name: tf.reshape(value, [1]) for name, value in logs.items()}

    several = SeveralWorkers(model.inputs, model.outputs)
    with strategy.scope():
        several.compile(model.optimizer, model.loss)
    return several


def distributed(
    make_dataset: Callable[[int, int], tf.data.Dataset], strategy: tf.distribute.Strategy
) -> Any:
    """Creates the dataset for `fit`. Each worker makes only its part of each batch.

    Args:
        make_dataset: Function (index of the worker, number of workers) -> batches of the worker.
            If a worker has several replicas, these must be the batches of one replica.
        strategy: The strategy of the run.

    Returns:
        A `tf.data.Dataset`, or a distributed dataset with several workers.
    """
    index, workers = worker(strategy)
    if workers == 1:
        return make_dataset(0, 1)
    return strategy.distribute_datasets_from_function(lambda _: make_dataset(index, workers))


def wait_for_workers(strategy: tf.distribute.Strategy) -> None:
    """Waits until all workers have called this function.

    A worker that exits while the others still train would make them fail.

    Args:
        strategy: The strategy of the run.
    """
    if not is_multiworker(strategy):
        return

    @tf.function
    def meet() -> tf.Tensor:
        ones = strategy.run(lambda: tf.constant(1.0))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, ones, axis=None)

    meet()
