"""A recipe says how to train."""

import dataclasses
import math
from typing import Any

import keras

from ssd_keras.augmentation.ops import AUGMENTATIONS
from ssd_keras.training.optimizer import Adam, CaffeSGD, Schedule


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
            if not 0 <= getattr(self, name) < math.inf:  # NaN fails the comparison
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
