"""Optimizers and learning rate schedules, with the solver of the original (Caffe's SGD)."""

import math
from typing import Any

import keras
import tensorflow as tf

# Entries of `Solver.watch`.
BATCHES, LARGEST, FIRST_BAD, BAD_NORM, LIMIT, STOP = range(6)


class Solver(keras.optimizers.Optimizer):
    """Mixin for optimizers that records gradient norms on the device.

    It also makes schedules count optimizer steps instead of batches, and keeps the weights of the
    model separate from their moving averages.

    Attributes:
        gradient_norm: float32 scalar, the global norm of the gradients of the last batch before
            clipping. With several replicas it is the sum of the norms of all replicas, which is an
            upper bound and equal on all workers.
        watch: float32 [6], written on the device, so that the norm need not be read after each
            batch. Its entries are the number of batches since `start_watch`, the largest norm, the
            first batch whose norm is above the limit or not finite (-1 if there is none), the norm
            of that batch, the limit, and the number of workers that requested a stop.
        stop_request: float32 scalar; 1 requests all workers to stop.
    """

    gradient_norm: Any = None

    def build(self, variables: Any) -> None:
        """Creates the variables of the optimizer."""
        super().build(variables)
        options = {
            "trainable": False,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        self.gradient_norm = tf.Variable(0.0, name="gradient_norm", **options)
        self.watch = tf.Variable([0.0, 0.0, -1.0, 0.0, math.inf, 0.0], name="watch", **options)
        self.stop_request = tf.Variable(0.0, name="stop_request", **options)

    def start_watch(self, limit: float) -> None:
        """Clears `watch`.

        Args:
            limit: Largest allowed gradient norm.
        """
        self.watch.assign([0.0, 0.0, -1.0, 0.0, limit, 0.0])

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Records the norm of the gradients of a batch, and applies the gradients.

        Args:
            grads: Gradients, one for each variable.
            trainable_variables: The variables, or None for those of `build`.
        """
        grads = list(grads)
        if self.gradient_norm is None:
            with tf.init_scope():
                self.build(trainable_variables)
        norm, stop = tf.linalg.global_norm(grads), tf.identity(self.stop_request)
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            both = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack([norm, stop]))
            norm, stop = tf.unstack(both)
        self.gradient_norm.assign(norm)
        batches, largest, first_bad, bad_norm, limit, _ = tf.unstack(tf.identity(self.watch))
        bad = (first_bad < 0) & ~(norm <= limit)  # not `norm > limit`, which is false for NaN
        watch = [
            batches + 1,
            tf.maximum(largest, norm),
            tf.where(bad, batches, first_bad),
            tf.where(bad, norm, bad_norm),
            limit,
            stop,
        ]
        self.watch.assign(tf.stack(watch))
        super().apply(grads, trainable_variables)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Does nothing. Keras would replace the weights by their averages at the end of `fit`."""

    def assign_averages(self, variables: Any) -> None:
        """Sets variables to their moving averages (`use_ema`).

        Args:
            variables: The variables that the optimizer was built with.
        """
        super().finalize_variable_values(variables)

    def _get_current_learning_rate(self) -> Any:
        # With gradient accumulation, Keras passes the number of batches to a schedule. Caffe's
        # `Solver::Step` counts optimizer steps, as this method does.
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()


def solver(optimizer: keras.optimizers.Optimizer) -> Solver:
    """Returns the `Solver` of an optimizer.

    With mixed_float16, Keras wraps the optimizer in a `LossScaleOptimizer`.

    Args:
        optimizer: An optimizer of `Recipe.make_optimizer`, possibly wrapped.
    """
    inner: Solver = getattr(optimizer, "inner_optimizer", optimizer)
    return inner


@keras.saving.register_keras_serializable(package="ssd_keras")
class Adam(Solver, keras.optimizers.Adam):
    """Keras's Adam with the mixin `Solver`.

    Args:
        **kwargs: Arguments of `keras.optimizers.Adam`.
    """


@keras.saving.register_keras_serializable(package="ssd_keras")
class CaffeSGD(Solver, keras.optimizers.SGD):
    """SGD with momentum and weight decay as in Caffe.

    The weight decay is coupled: it is added to the gradient, before the momentum. The
    `weight_decay` of Keras is decoupled, and about ten times weaker with momentum 0.9. Biases have
    no weight decay and twice the learning rate. `global_clipnorm` clips the gradients before weight
    decay is added.

    Args:
        learning_rate: Learning rate or schedule of the kernels.
        momentum: Momentum, in [0, 1).
        l2: Coupled weight decay, at least 0.
        bias_rate: Factor on the learning rate of biases.
        global_clipnorm: Largest global norm of the gradients, or None for no clipping.
        name: Name of the optimizer.
        **kwargs: Further arguments of `keras.optimizers.SGD`, such as
            `gradient_accumulation_steps`.

    Raises:
        ValueError: If `l2` is negative.

    Source: `ssd_pascal.py` (weight_decay 0.0005, momentum 0.9; lr_mult 2 and decay_mult 0 for
    biases), `SGDSolver::Regularize` in Caffe's `sgd_solver.cpp`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        momentum: float = 0.9,
        l2: float = 5e-4,
        bias_rate: float = 2.0,
        global_clipnorm: float | None = None,
        name: str = "caffe_sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            momentum=momentum,
            global_clipnorm=global_clipnorm,
            name=name,
            **kwargs,
        )
        if l2 < 0:
            raise ValueError(f"l2 (={l2}) must be at least 0")
        self.l2 = l2
        self.bias_rate = bias_rate

    def build(self, variables: Any) -> None:
        """Creates the variables of the optimizer."""
        super().build(variables)
        self._is_bias = [variable.name == "bias" for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        # `variable` is a TensorFlow variable or a replica's copy with another name, so the index
        # is used instead of the name.
        if self._is_bias[self._get_variable_index(variable)]:
            super().update_step(gradient, variable, self.bias_rate * learning_rate)
        else:
            decay = keras.ops.cast(self.l2, gradient.dtype) * variable
            super().update_step(gradient + decay, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as serializable values."""
        return {**super().get_config(), "l2": self.l2, "bias_rate": self.bias_rate}


@keras.saving.register_keras_serializable(package="ssd_keras")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate schedule: linear warm-up, then steps or cosine decay.

    Args:
        learning_rate: Learning rate after the warm-up.
        boundaries: Iterations at which the rate is multiplied by `decay`, in ascending order. Must
            be empty with `cosine_iterations`.
        decay: Factor on the rate at each boundary.
        warmup: Number of iterations of a warm-up, in which a factor on the rate rises linearly from
            `warmup_factor` to 1.
        warmup_factor: Factor on the rate at the beginning of a warm-up.
        cosine_iterations: If above 0, the rate falls as half a cosine to 0 at this iteration.
        warmup_starts: Iterations at which a warm-up begins.

    Raises:
        ValueError: If the rate is not above 0, the boundaries are not in ascending order, or both
            `boundaries` and `cosine_iterations` are given.

    Source: `ssd_pascal.py`, lr_policy "multistep"; the original has no warm-up.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        boundaries: tuple[int, ...] | list[int] = (80_000, 100_000),
        decay: float = 0.1,
        warmup: int = 0,
        warmup_factor: float = 0.1,
        cosine_iterations: int = 0,
        warmup_starts: tuple[int, ...] | list[int] = (0,),
    ) -> None:
        super().__init__()
        boundaries = tuple(boundaries)
        if learning_rate <= 0:
            raise ValueError(f"learning_rate (={learning_rate}) must be above 0")
        if list(boundaries) != sorted(set(boundaries)):
            raise ValueError(f"boundaries (={boundaries}) must be in ascending order")
        if cosine_iterations and boundaries:
            raise ValueError(
                f"boundaries (={boundaries}) must be empty with cosine_iterations "
                f"(={cosine_iterations}): choose one of the two"
            )
        self.learning_rate = learning_rate
        self.boundaries = boundaries
        self.decay = decay
        self.warmup = warmup
        self.warmup_factor = warmup_factor
        self.cosine_iterations = cosine_iterations
        self.warmup_starts = tuple(warmup_starts)

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the learning rate of iteration `step` (from 0), a float32 scalar."""
        step = tf.cast(step, tf.float32)
        rate = tf.constant(self.learning_rate, tf.float32)
        for boundary in self.boundaries:
            rate *= tf.where(step >= boundary, self.decay, 1.0)
        if self.cosine_iterations:
            part = tf.minimum(step / self.cosine_iterations, 1.0)
            rate *= 0.5 * (1 + tf.cos(math.pi * part))
        for start in self.warmup_starts if self.warmup else ():
            part = tf.minimum((step - start) / self.warmup, 1.0)
            part = tf.where(step < start, 1.0, part)  # no effect before the warm-up begins
            rate *= self.warmup_factor + (1 - self.warmup_factor) * part
        return rate

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as serializable values."""
        return {
            "learning_rate": self.learning_rate,
            "boundaries": self.boundaries,
            "decay": self.decay,
            "warmup": self.warmup,
            "warmup_factor": self.warmup_factor,
            "cosine_iterations": self.cosine_iterations,
            "warmup_starts": self.warmup_starts,
        }
