"""Several devices and several machines, by `tf.distribute`."""

import json
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ssd_keras.model import SSD

STRATEGIES = ("none", "mirrored", "multiworker")


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Makes the strategy of a run.

    Args:
        name: "none" (one device), "mirrored" (all GPUs of this machine, or all its logical CPU
            devices if it has no GPU) or "multiworker" (the machines that the environment variable
            `TF_CONFIG` lists; waits until all of them have started).

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
    """Refuses a `TF_CONFIG` without workers: TensorFlow would train on one machine silently."""
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
    example += '"index": 0}}'
    try:
        config = json.loads(text)
        known = bool(config["cluster"]["worker"]) and config["task"]["index"] >= 0
    except (ValueError, TypeError, LookupError):
        known = False
    if not known:
        raise ValueError(
            f"TF_CONFIG (={text!r}) must list the workers and say which one this is, such as "
            f"{example}"
        )


def is_multiworker(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy spans several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """The index of this process among the workers, and their number: (0, 1) without others."""
    if not is_multiworker(strategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    tasks = resolver.cluster_spec().as_dict()
    chiefs = len(tasks.get("chief", ()))
    index = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return index, chiefs + len(tasks.get("worker", ()))


def trainer(model: SSD, strategy: tf.distribute.Strategy) -> SSD:
    """The model whose `fit` works under a strategy.

    Keras 3's `fit` fails with several workers (keras-team/keras#20585): it traces the model on
    values of all replicas, and reduces logs that have no batch axis. Keras does not trace a model
    that is made outside of the strategy's scope, and the logs get an axis here.

    Args:
        model: A compiled and built model, made in the strategy's scope.
        strategy: Its strategy.

    Returns:
        `model`, or with several workers another model of the same layers, optimizer and loss.
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
    """The dataset for `fit`: each worker makes its own part of every batch only.

    Args:
        make_dataset: Makes the batches of a worker from its index and the number of workers. They
            must be the batches of one replica if the worker has several.
        strategy: The strategy of the run.
    """
    index, workers = worker(strategy)
    if workers == 1:
        return make_dataset(0, 1)
    return strategy.distribute_datasets_from_function(lambda _: make_dataset(index, workers))


def wait_for_workers(strategy: tf.distribute.Strategy) -> None:
    """Returns when all workers have come here: one that leaves early ends the others."""
    if not is_multiworker(strategy):
        return

    @tf.function
    def meet() -> tf.Tensor:
        ones = strategy.run(lambda: tf.constant(1.0))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, ones, axis=None)

    meet()
