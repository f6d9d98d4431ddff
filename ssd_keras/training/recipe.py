"""A recipe: the settings of a training run."""

import dataclasses
import math
from typing import Any

import keras

from ssd_keras.augmentation.ops import AUGMENTATIONS
from ssd_keras.training.optimizer import Adam, CaffeSGD, Schedule

# Fields with a fixed set of values.
CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "adam"),
    "normalize": ("batch", "step"),
    "augmentation": tuple(AUGMENTATIONS),
    "metric": ("voc", "voc_area", "coco"),
}
_EVALUATIONS = 20  # number of evaluations in a run whose `eval_every` is 0


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a training run. The defaults are the original's for VOC07+12.

    Raises:
        ValueError: If a value is out of range or unknown, or `unfreeze_at` is given without
            `freeze`.

    Source: `ssd_pascal.py`.

    Attributes:
        iterations: Number of optimizer steps of the run.
        epochs: Length of the run in passes over the training images; 0 if `iterations` is the
            length.
        batch_size: Images per batch, on all devices together.
        accumulate: Batches per optimizer step, whose gradients are averaged, for devices with too
            little memory for 32 images (`iter_size` in `ssd_pascal.py`). On one device only.
        normalize: Positives that the loss of a batch is divided by if `accumulate` is above 1:
            those of the "batch", as in the original, or those of all batches of the "step", as with
            one large batch.
        optimizer: "sgd" (as in Caffe) or "adam".
        learning_rate: Learning rate after the warm-up.
        boundaries: Iterations at which the learning rate is divided by ten.
        cosine: Whether the learning rate falls as half a cosine to 0; `boundaries` are then
            ignored.
        warmup: Iterations of linear warm-up from a tenth of the learning rate, at the beginning and
            at `unfreeze_at`.
        momentum: Momentum of SGD.
        weight_decay: Coupled weight decay of SGD, for all weights except biases.
        clip_norm: Largest global norm of the gradients (of each replica); 0 for no limit.
        ema: Momentum of the moving average of the weights, such as 0.999; 0 for no average. With an
            average, evaluation and best.keras use it.
        augmentation: Name of the augmentation.
        use_difficult: Whether difficult objects are ground truth: in the original they are for VOC,
            but not for COCO.
        border_boxes: Whether default boxes that cross the border of the image are trained (table 3
            compares both).
        max_boxes: Number of objects to which each image is padded or cut. Default: the largest
            number of objects in an image.
        freeze: Names or patterns of layers that are not trained, such as "conv1_*".
        unfreeze_at: Iteration from which frozen layers are trained, too; 0 for never.
        eval_every: Iterations between two checkpoints and evaluations; 0 for a twentieth of the
            run. The end of the run always has both.
        metric: Average precision to measure at each evaluation: "voc" (11-point, VOC2007),
            "voc_area" (VOC2010 and later, ILSVRC DET) or "coco".
        seed: Seed of the initial weights, the order of the images and the augmentation.
    """

    iterations: int = 120_000
    epochs: float = 0.0
    batch_size: int = 32
    accumulate: int = 1
    normalize: str = "batch"
    optimizer: str = "sgd"
    learning_rate: float = 1e-3
    boundaries: tuple[int, ...] = (80_000, 100_000)
    cosine: bool = False
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 0.0
    ema: float = 0.0
    augmentation: str = "ssd"
    use_difficult: bool = True
    border_boxes: bool = True
    max_boxes: int | None = None
    freeze: tuple[str, ...] = ()
    unfreeze_at: int = 0
    eval_every: int = 1000
    metric: str = "voc"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} (={getattr(self, name)}) must be at least 1")
        for name in ("warmup", "clip_norm", "weight_decay", "epochs", "eval_every", "unfreeze_at"):
            # `not 0 <= x`, because every comparison with NaN is false.
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} (={getattr(self, name)}) must not be negative, infinite or NaN"
                )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate (={self.learning_rate}) must be above 0 and finite")
        for name in ("momentum", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} (={getattr(self, name)}) must be in [0, 1)")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} (={getattr(self, name)!r}) must be one of {', '.join(choices)}"
                )
        if self.unfreeze_at and not self.freeze:
            raise ValueError(
                f"unfreeze_at (={self.unfreeze_at}) needs frozen layers: give freeze, or set it "
                "to 0"
            )

    def resolved(self, num_images: int) -> "Recipe":
        """Returns the recipe with `epochs` and `eval_every` converted to iterations.

        Args:
            num_images: Number of training images.

        Returns:
            A recipe whose `iterations` are the length of the run, whose `epochs` are 0, and whose
            `eval_every` is from 1 to `iterations`.
        """
        iterations = self.iterations
        if self.epochs:
            iterations = math.ceil(self.epochs * num_images / (self.batch_size * self.accumulate))
        every = self.eval_every or math.ceil(iterations / _EVALUATIONS)
        return dataclasses.replace(
            self, iterations=iterations, epochs=0.0, eval_every=min(every, iterations)
        )

    def make_optimizer(self) -> keras.optimizers.Optimizer:
        """Creates the optimizer with its schedule; the recipe must be `resolved`."""
        schedule = Schedule(
            self.learning_rate,
            () if self.cosine else self.boundaries,
            warmup=self.warmup,
            cosine_iterations=self.iterations if self.cosine else 0,
            warmup_starts=(0, self.unfreeze_at) if self.unfreeze_at else (0,),
        )
        options: dict[str, Any] = {
            "global_clipnorm": self.clip_norm or None,
            "gradient_accumulation_steps": self.accumulate if self.accumulate > 1 else None,
        }
        if self.ema:
            # With gradient accumulation, Keras updates the average after each batch, not each step.
            options |= {"use_ema": True, "ema_momentum": self.ema ** (1 / self.accumulate)}
        if self.optimizer == "adam":
            return Adam(learning_rate=schedule, **options)
        return CaffeSGD(schedule, self.momentum, self.weight_decay, **options)


def pieces(done: int, recipe: Recipe) -> list[tuple[int, int, int]]:
    """Divides the rest of a run into calls of `fit`.

    A span is the part of a run between two checkpoints. Spans end at each multiple of `eval_every`,
    at `unfreeze_at` and at the end of the run. All spans of one call of `fit` have the same length.

    Args:
        done: Number of completed iterations. It may be any number, because a run may be
            interrupted at any iteration.
        recipe: A resolved recipe.

    Returns:
        (first iteration, iterations per span, number of spans) of each call.
    """
    every, end = recipe.eval_every, recipe.iterations
    stops = sorted({*range(0, end, every), end, min(recipe.unfreeze_at or end, end)})
    found: list[tuple[int, int, int]] = []
    for stop in (stop for stop in stops if stop > done):
        first, length, count = found[-1] if found else (0, 0, 0)
        if length == stop - done and done != recipe.unfreeze_at:
            found[-1] = (first, length, count + 1)
        else:
            found.append((done, stop - done, 1))
        done = stop
    return found
