"""The configuration of an SSD: input size, feature maps and the tiling of default boxes.

The four constants at the end are the configs of the released models. `dataclasses.replace` makes
variants of them. The values are checked when a config is created.
"""

import dataclasses
import math
from typing import Any


def _check_positive(where: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{where}: {name} (={value}) must be a number above 0")


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureMap:
    """A feature map that the heads predict from, and its default boxes.

    Attributes:
        name: Name of the layer that outputs the map, as in the paper: "conv4_3", "fc7", "conv8_2".
            Several feature maps may read one layer, each with boxes of another scale.
        size: Number of cells along one side.
        step: Distance between the centers of neighboring cells, in pixels of the input image.
        min_size: Side of the smaller square default box, in pixels.
        max_size: Determines the larger square default box, with the side
            sqrt(min_size * max_size), in pixels. If None, there is no larger square.
        aspect_ratios: Ratios width / height other than 1. Each ratio r adds a default box of ratio
            r and one of ratio 1/r.
        fully_connected: Predict each box from the whole map instead of the 3x3 cells around it, as
            YOLO does (section 4). The released models do not.

    Raises:
        ValueError: If a value is not a number above 0, `min_size` is not below `max_size`, or an
            aspect ratio is 1.

    Source: section 2.2 of the paper.
    """

    name: str
    size: int
    step: float
    min_size: float
    max_size: float | None
    aspect_ratios: tuple[float, ...]
    fully_connected: bool = False

    def __post_init__(self) -> None:
        # JSON gives lists, and a config with a list would not equal one with a tuple.
        object.__setattr__(self, "aspect_ratios", tuple(self.aspect_ratios))
        where = f"feature map {self.name}"
        _check_positive(where, size=self.size, step=self.step, min_size=self.min_size)
        if self.max_size is not None:
            _check_positive(where, max_size=self.max_size)
        if self.max_size is not None and self.min_size >= self.max_size:
            raise ValueError(
                f"{where}: min_size (={self.min_size}) must be below max_size (={self.max_size})"
            )
        for ratio in self.aspect_ratios:
            if not (math.isfinite(ratio) and ratio > 0 and ratio != 1):
                raise ValueError(
                    f"{where}: aspect_ratios (={self.aspect_ratios}) must be above 0 and not 1: "
                    "every map already has square boxes"
                )

    @property
    def boxes_per_location(self) -> int:
        """A, the number of default boxes at each cell: one or two squares, two for each ratio."""
        return 1 + (self.max_size is not None) + 2 * len(self.aspect_ratios)


@dataclasses.dataclass(frozen=True, slots=True)
class ExtraLayer:
    """A pair of convolutions after fc7: a 1x1 bottleneck `<name>_1`, then a k x k `<name>_2`.

    Attributes:
        name: "conv8" to "conv12", as in figure 2 of the paper. The original code calls these layers
            conv6 to conv10.
        bottleneck: Number of filters of the 1x1 convolution.
        filters: Number of filters of the k x k convolution.
        kernel: Kernel size k.
        stride: Stride of the k x k convolution.
        padding: Number of zeros added on every side before the k x k convolution.

    Raises:
        ValueError: If `padding` is below 0, or another number is not above 0.
    """

    name: str
    bottleneck: int
    filters: int
    kernel: int
    stride: int
    padding: int

    def __post_init__(self) -> None:
        sizes = {"bottleneck": self.bottleneck, "filters": self.filters}
        steps = {"kernel": self.kernel, "stride": self.stride}
        _check_positive(f"extra layer {self.name}", **sizes, **steps)
        if self.padding < 0:
            raise ValueError(
                f"extra layer {self.name}: padding (={self.padding}) must be at least 0"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class SSDConfig:
    """The input, the feature maps and the box coding of an SSD.

    Attributes:
        image_size: Side of the square input image, in pixels.
        feature_maps: Feature maps that the heads predict from, in the order of the network. Their
            `min_size` must rise.
        extra_layers: Layers added after fc7.
        variances: Divisors of the offsets, in the order (cy, cx, h, w).
        mean: RGB mean of the training images, 0..255. The model subtracts it, and the expansion
            augmentation fills the canvas with it.
        integer_sizes: Whether to truncate box sizes to whole pixels, as the original's PriorBox
            layer does (`prior_box_layer.cpp`: `int min_size_`). This changes SSD512 only.
        clip: Whether to clip the default boxes to the image. The released models do not.
        atrous: Whether VGG16 is reduced as in section 3: pool5 is 3x3 with stride 1, fc6 has 1024
            filters of 3x3 with dilation 6, and fc7 has 1024. If False, VGG16 is complete: pool5 is
            2x2 with stride 2, fc6 has 4096 filters of 7x7, and fc7 has 4096 (table 2).

    Raises:
        ValueError: If `feature_maps` is empty or its `min_size` does not rise, if `variances` or
            `mean` has a wrong length, or if a number is out of range or not finite.
    """

    image_size: int
    feature_maps: tuple[FeatureMap, ...]
    extra_layers: tuple[ExtraLayer, ...]
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    integer_sizes: bool = True
    clip: bool = False
    atrous: bool = True

    def __post_init__(self) -> None:
        for field in ("feature_maps", "extra_layers", "variances", "mean"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        _check_positive("config", image_size=self.image_size)
        if not self.feature_maps:
            raise ValueError("feature_maps (=()) must hold at least one FeatureMap")
        for smaller, larger in zip(self.feature_maps, self.feature_maps[1:], strict=False):
            if larger.min_size <= smaller.min_size:
                raise ValueError(
                    "feature_maps: min_size must rise from each map to the next, but "
                    f"{smaller.name} has {smaller.min_size} and {larger.name} has {larger.min_size}"
                )
        smallest = self.feature_maps[0].min_size
        if self.integer_sizes and smallest < 1:
            raise ValueError(
                f"min_size (={smallest}) of {self.feature_maps[0].name} must be at least 1, or "
                "integer_sizes truncates it to 0: use a larger size or integer_sizes=False"
            )
        for field, length in (("variances", 4), ("mean", 3)):
            value = getattr(self, field)
            if len(value) != length:
                raise ValueError(f"{field} (={value}) must have {length} values, not {len(value)}")
            if not all(math.isfinite(v) for v in value):
                raise ValueError(f"{field} (={value}) must be finite numbers")
        if min(self.variances) <= 0:
            raise ValueError(f"variances (={self.variances}) must be above 0")

    @property
    def num_default_boxes(self) -> int:
        """P, the number of default boxes: 8732 for SSD300, 24564 for SSD512."""
        return sum(m.size**2 * m.boxes_per_location for m in self.feature_maps)

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as JSON values, which `from_dict` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SSDConfig":
        """Creates a config from the result of `to_dict`.

        Args:
            values: The attributes by name. `feature_maps` and `extra_layers` are lists of
                dictionaries with the attributes of `FeatureMap` and `ExtraLayer`.

        Raises:
            KeyError: If `feature_maps` or `extra_layers` is missing.
            TypeError: If another key is missing or unknown.
            ValueError: If this class, `FeatureMap` or `ExtraLayer` refuses a value.
        """
        feature_maps = [FeatureMap(**m) for m in values["feature_maps"]]
        extra_layers = [ExtraLayer(**e) for e in values["extra_layers"]]
        return cls(**{**values, "feature_maps": feature_maps, "extra_layers": extra_layers})


def _tiling(
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    steps: tuple[float, ...],
    box_sizes: tuple[float, ...],
    aspect_ratios: tuple[tuple[float, ...], ...],
) -> tuple[FeatureMap, ...]:
    """Creates the feature maps from columns of their attributes.

    `box_sizes` has one value more than the other columns: the `max_size` of a map is the `min_size`
    of the next map.
    """
    columns = (names, sizes, steps, box_sizes[:-1], box_sizes[1:], aspect_ratios)
    return tuple(FeatureMap(*row) for row in zip(*columns, strict=True))


MAP_NAMES = ("conv4_3", "fc7", "conv8_2", "conv9_2", "conv10_2", "conv11_2", "conv12_2")
_SSD300_LAYERS = (
    ExtraLayer("conv8", 256, 512, kernel=3, stride=2, padding=1),
    ExtraLayer("conv9", 128, 256, kernel=3, stride=2, padding=1),
    ExtraLayer("conv10", 128, 256, kernel=3, stride=1, padding=0),
    ExtraLayer("conv11", 128, 256, kernel=3, stride=1, padding=0),
)
_SSD512_LAYERS = (
    ExtraLayer("conv8", 256, 512, kernel=3, stride=2, padding=1),
    ExtraLayer("conv9", 128, 256, kernel=3, stride=2, padding=1),
    ExtraLayer("conv10", 128, 256, kernel=3, stride=2, padding=1),
    ExtraLayer("conv11", 128, 256, kernel=3, stride=2, padding=1),
    ExtraLayer("conv12", 128, 256, kernel=4, stride=1, padding=1),
)


def _ssd300(box_sizes: tuple[float, ...]) -> SSDConfig:
    ratios = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
    steps = (8, 16, 32, 64, 100, 300)
    maps = _tiling(MAP_NAMES[:6], (38, 19, 10, 5, 3, 1), steps, box_sizes, ratios)
    return SSDConfig(300, maps, _SSD300_LAYERS)


def _ssd512(box_sizes: tuple[float, ...]) -> SSDConfig:
    ratios = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
    steps = (8, 16, 32, 64, 128, 256, 512)
    maps = _tiling(MAP_NAMES, (64, 32, 16, 8, 4, 2, 1), steps, box_sizes, ratios)
    return SSDConfig(512, maps, _SSD512_LAYERS)


# The box sizes of SSD300 are those that examples/ssd/ssd_pascal.py and ssd_coco.py compute. The
# original code has no script for SSD512: its sizes are those of the released models, as their ports
# give them. Models that were fine-tuned on VOC from COCO keep the COCO tiling.
SSD300_VOC = _ssd300((30, 60, 111, 162, 213, 264, 315))
SSD300_COCO = _ssd300((21, 45, 99, 153, 207, 261, 315))
SSD512_VOC = _ssd512((35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6))
SSD512_COCO = _ssd512((20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72))

CONFIGS = {
    "SSD300_VOC": SSD300_VOC,
    "SSD300_COCO": SSD300_COCO,
    "SSD512_VOC": SSD512_VOC,
    "SSD512_COCO": SSD512_COCO,
}
