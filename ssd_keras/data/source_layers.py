"""Other source layers or another input size, where the objects of a data set ask for them.

Box sizes alone cannot match every object. Two boxes of side s, whose centers differ by half a step
d/2 on both axes, have an IoU of at least 0.5 only if (s - d/2)^2 >= 2/3 s^2, that is s >= 2.72 d.
With the step of conv4_3, 8 pixels, an object of less than 22 pixels may therefore stay unmatched,
wherever its default box has the right size. Smaller steps are the remedy: an earlier source layer
or a larger input. In the other direction, a last map that matches no object is not needed.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ssd_keras.config import FeatureMap, SSDConfig
from ssd_keras.data.box_coverage import IOU_THRESHOLD
from ssd_keras.data.fit_boxes import fitted_config, least_boxes, nearest_iou, sampled_objects

EARLY_SOURCE = "conv3_3"
_EARLY_STEP = 4
_SURE_STEPS = 1 / (2 - 2 * math.sqrt(2 / 3))  # 2.72
_MANY = 0.05  # share of the objects
_GAIN, _LOSS = 0.02, 0.005  # of the share of matched objects
_FEW = 0.001  # share of the objects
_LARGER = 1.5


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """A change of the config that the objects ask for.

    Attributes:
        reason: What the objects are like, in one sentence.
        flag: The flag of `ssd-keras fit-boxes` that makes the change.
        min_boxes: The least number of default boxes that the changed config can have.
        config: The changed config with fitted box sizes, or None if the number of default boxes is
            too small for it.
    """

    reason: str
    flag: str
    min_boxes: int
    config: SSDConfig | None


def with_sources(config: SSDConfig, names: Sequence[str]) -> SSDConfig:
    """Returns the config with other source layers.

    Args:
        config: A config, as `SSDConfig.for_image_size` makes it.
        names: Names of the source layers: those of the feature maps to keep, and possibly
            "conv3_3", which gets cells of 4 pixels and boxes of half the sizes of the first map.

    Returns:
        A config with the box sizes of `config` and no more extra layers than it needs.

    Raises:
        ValueError: If a name is unknown, or there is none.
    """
    maps = {m.name: m for m in config.feature_maps}
    if EARLY_SOURCE in names and EARLY_SOURCE not in maps:
        maps = {EARLY_SOURCE: _early_map(config), **maps}
    unknown = [name for name in names if name not in maps]
    if unknown or not names:
        raise ValueError(
            f"sources (={','.join(names)}) must be of {EARLY_SOURCE} and the maps of the config, "
            f"{', '.join(m.name for m in config.feature_maps)}"
        )
    count = max(
        (k for k, e in enumerate(config.extra_layers, start=1) if f"{e.name}_2" in names), default=0
    )
    return dataclasses.replace(
        config,
        feature_maps=tuple(m for name, m in maps.items() if name in names),
        extra_layers=config.extra_layers[:count],
    )


def with_image_size(config: SSDConfig, image_size: int | tuple[int, int]) -> SSDConfig:
    """Returns `SSDConfig.for_image_size`, with the mean and the box coding of a config."""
    kept = ("variances", "mean", "integer_sizes", "clip")
    return SSDConfig.for_image_size(image_size, **{name: getattr(config, name) for name in kept})


def proposals(
    warped: Sequence[np.ndarray],
    augmented: Sequence[np.ndarray],
    config: SSDConfig,
    fitted: SSDConfig,
    *,
    max_boxes: int,
) -> list[Proposal]:
    """Proposes an earlier source layer and a larger input, or to leave out the last maps.

    The first two are proposed if at least 5 % of the objects have no default box with an IoU of at
    least 0.5 and are so small that only smaller steps can match all of them. They must raise the
    share of matched objects by two points. Maps at the end are left out if fewer than one object in
    a thousand has an IoU of at least 0.5 with their boxes in the config that is not fitted, and the
    fit without them matches as many objects.

    Args:
        warped: The objects of each image without augmentation, float32 [G, 4], from `object_boxes`.
        augmented: The objects under the training augmentation.
        config: The config before the fit.
        fitted: The config from `fitted_config`.
        max_boxes: Largest number of default boxes.

    Returns:
        The proposals; none for most data sets.
    """
    everything = [*warped, *augmented]
    best = _best_iou(warped, fitted)
    side = np.sqrt(np.prod(sampled_objects(warped, fitted)[:, 2:], axis=1))
    sure = _SURE_STEPS * max(fitted.feature_maps[0].steps)
    small = float(np.mean((best < IOU_THRESHOLD) & (side < sure)))
    found: list[Proposal] = []
    if small >= _MANY:
        reason = (
            f"{100 * small:.0f}% of the objects have no match and are smaller than {sure:.0f} "
            f"pixels, so the cells of {fitted.feature_maps[0].name} are too large for them"
        )
        least = _share(warped, fitted) + _GAIN
        for flag, changed in _finer(config).items():
            proposal = _fitted(reason, flag, changed, everything, max_boxes)
            if proposal.config is None or _share(warped, proposal.config) >= least:
                found.append(proposal)
    names = [m.name for m in config.feature_maps]
    if unused := names[_needed_maps(everything, config) :]:
        needed = names[: -len(unused)]
        reason = f"almost no object is large enough for the boxes of {', '.join(unused)}"
        flag = f"--sources={','.join(needed)}"
        proposal = _fitted(reason, flag, with_sources(config, needed), everything, max_boxes)
        least = _share(everything, fitted) - _LOSS
        if proposal.config and _share(everything, proposal.config) >= least:
            found.append(proposal)
    return found


def _needed_maps(boxes: Sequence[np.ndarray], config: SSDConfig) -> int:
    """Number of maps up to the last one that matches objects, at least 1."""
    objects = sampled_objects(boxes, config)
    shares = [
        np.mean(nearest_iou(objects, m, config) >= IOU_THRESHOLD) for m in config.feature_maps
    ]
    return max((k for k, share in enumerate(shares, start=1) if share >= _FEW), default=1)


def _early_map(config: SSDConfig) -> FeatureMap:
    first = config.feature_maps[0]
    height, width = config.input_size
    return dataclasses.replace(
        first,
        name=EARLY_SOURCE,
        size=(-(-height // _EARLY_STEP), -(-width // _EARLY_STEP)),
        step=_EARLY_STEP,
        min_size=max(1, round(first.min_size / 2)),
        max_size=first.min_size,
    )


def _finer(config: SSDConfig) -> dict[str, SSDConfig]:
    """Configs with smaller steps, by flag."""
    finer = {}
    names = [m.name for m in config.feature_maps]
    if names[0] == "conv4_3":
        flag = f"--sources={','.join([EARLY_SOURCE, *names])}"
        finer[flag] = with_sources(config, [EARLY_SOURCE, *names])
    height, width = (8 * round(side * _LARGER / 8) for side in config.input_size)
    finer[f"--image_size={height}x{width}"] = with_image_size(config, (height, width))
    return finer


def _fitted(
    reason: str, flag: str, config: SSDConfig, objects: Sequence[np.ndarray], max_boxes: int
) -> Proposal:
    least = least_boxes(config)
    fits = fitted_config(objects, config, max_boxes=max_boxes) if least <= max_boxes else None
    return Proposal(reason, flag, least, fits)


def _best_iou(boxes: Sequence[np.ndarray], config: SSDConfig) -> np.ndarray:
    objects = sampled_objects(boxes, config)
    return np.max([nearest_iou(objects, m, config) for m in config.feature_maps], axis=0)


def _share(boxes: Sequence[np.ndarray], config: SSDConfig) -> float:
    return float(np.mean(_best_iou(boxes, config) >= IOU_THRESHOLD))
