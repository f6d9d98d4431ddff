"""The configuration of an SSD: input size, feature maps and the tiling of default boxes.

The four constants at the end are the configs of the released models. `SSDConfig.for_image_size`
makes configs for other inputs, and `dataclasses.replace` makes variants. The values are checked
when a config is created.
"""

import dataclasses
import math
from typing import Any

from ssd_keras.input_sizes import grids, pair, whole


def _check_positive(where: str, **values: float | tuple[float, ...]) -> None:
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"{where}: {name} (={value}) must be a number above 0")


def _simplest(where: str, name: str, value: Any) -> Any:
    """Returns one number for a pair of equal numbers, so that equal configs compare as equal."""
    if not isinstance(value, (tuple, list)):
        return value
    if len(value) != 2:
        raise ValueError(f"{where}: {name} (={value}) must be a number or (vertical, horizontal)")
    return value[0] if value[0] == value[1] else tuple(value)


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureMap:
    """A feature map that the heads predict from, and its default boxes.

    Attributes:
        name: Name of the layer that outputs the map, as in the paper: "conv4_3", "fc7", "conv8_2".
            Several feature maps may read one layer, each with boxes of another scale.
        size: Number of cells along one side, or (rows, columns).
        step: Distance between the centers of neighboring cells, in pixels of the input image: one
            number, or (vertical, horizontal).
        min_size: Side of the smaller square default box, in pixels.
        max_size: The larger square default box has the side sqrt(min_size * max_size), in pixels.
            If None, there is no larger square.
        aspect_ratios: Ratios width / height other than 1. Each ratio r adds a default box of ratio
            r and one of ratio 1/r.
        fully_connected: Whether to predict each box from the whole map instead of the 3x3 cells
            around it, as YOLO does (section 4). The released models do not.

    Raises:
        ValueError: If a value is not a number above 0, `min_size` is not below `max_size`, an
            aspect ratio is 1, or two aspect ratios are equal or reciprocal.

    Source: section 2.2 of the paper.
    """

    name: str
    size: int | tuple[int, int]
    step: float | tuple[float, float]
    min_size: float
    max_size: float | None
    aspect_ratios: tuple[float, ...]
    fully_connected: bool = False

    def __post_init__(self) -> None:
        # JSON gives lists, and a config with a list would not equal one with a tuple.
        object.__setattr__(self, "aspect_ratios", tuple(self.aspect_ratios))
        where = f"feature map {self.name}"
        for field in ("size", "step"):
            object.__setattr__(self, field, _simplest(where, field, getattr(self, field)))
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
        kinds = {round(abs(math.log(ratio)), 6) for ratio in self.aspect_ratios}
        if len(kinds) < len(self.aspect_ratios):
            raise ValueError(
                f"{where}: aspect_ratios (={self.aspect_ratios}) must not hold a ratio twice, or a "
                "ratio and its reciprocal: each ratio r already adds boxes of ratio r and 1/r"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Number of rows and columns of cells."""
        return pair(self.size)

    @property
    def steps(self) -> tuple[float, float]:
        """Vertical and horizontal distance of neighboring cells, in pixels of the input image."""
        return pair(self.step)

    @property
    def boxes_per_location(self) -> int:
        """A, the number of default boxes at each cell: 1 or 2 squares, and 2 for each ratio."""
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
        image_size: Side of the square input image, or (height, width), in pixels.
        feature_maps: Feature maps that the heads predict from, in the order of the network. Each
            map must have a larger `min_size` than the map before it.
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
        ValueError: If `feature_maps` is empty, if `min_size` does not rise from map to map, if
            `variances` or `mean` has a wrong length, if a number is out of range or not finite, or
            if the cells of a map do not cover the image.
    """

    image_size: int | tuple[int, int]
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
        image_size = _simplest("config", "image_size", self.image_size)
        object.__setattr__(self, "image_size", image_size)
        _check_positive("config", image_size=image_size)
        if not self.feature_maps:
            raise ValueError("feature_maps (=()) must hold at least one FeatureMap")
        self._check_steps()
        for smaller, larger in zip(self.feature_maps, self.feature_maps[1:], strict=False):
            if larger.min_size <= smaller.min_size:
                raise ValueError(
                    "feature_maps: min_size must rise from each map to the next, but "
                    f"{smaller.name} has {smaller.min_size} and {larger.name} has {larger.min_size}"
                )
        smallest = self.feature_maps[0].min_size
        if self.integer_sizes and smallest < 1:
            raise ValueError(
                f"min_size (={smallest}) of {self.feature_maps[0].name} must be at least 1: "
                "integer_sizes truncates it to 0; use a larger size or integer_sizes=False"
            )
        for field, length in (("variances", 4), ("mean", 3)):
            value = getattr(self, field)
            if len(value) != length:
                raise ValueError(f"{field} (={value}) must have {length} values, not {len(value)}")
            if not all(math.isfinite(v) for v in value):
                raise ValueError(f"{field} (={value}) must be finite numbers")
        if min(self.variances) <= 0:
            raise ValueError(f"variances (={self.variances}) must be above 0")

    def _check_steps(self) -> None:
        """Checks on both axes that a map covers the image.

        The last cell must start inside the image, and the image must end less than one step after
        the end of that cell.
        """
        for m in self.feature_maps:
            for cells, step, side in zip(m.grid, m.steps, self.input_size, strict=True):
                if not (cells - 1) * step < side < (cells + 1) * step:
                    raise ValueError(
                        f"feature map {m.name}: {cells} cells with step (={step}) must cover the "
                        f"{side} pixels of image_size (={self.image_size}), but the centers are "
                        f"from {step / 2:g} to {(cells - 0.5) * step:g}: use a step of about "
                        f"{side / cells:g}, or SSDConfig.for_image_size"
                    )

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input image, in pixels."""
        return pair(self.image_size)

    @property
    def num_default_boxes(self) -> int:
        """P, the number of default boxes: 8732 for SSD300, 24564 for SSD512."""
        return sum(math.prod(m.grid) * m.boxes_per_location for m in self.feature_maps)

    @classmethod
    def for_image_size(
        cls,
        image_size: int | tuple[int, int],
        scales: tuple[float, float] | None = None,
        **options: Any,
    ) -> "SSDConfig":
        """Creates a config for any input size by the rules of the original.

        At most five extra layers halve the map until its shorter side has one cell. The last ones
        follow SSD300 or SSD512. Box sizes are fractions of the shorter side of the image: `scales`
        on conv4_3 and fc7, then sizes that rise in equal steps to about 0.9. The config for 300 is
        `SSD300_VOC`, and the config for 512 is `SSD512_VOC`.

        Args:
            image_size: Side of a square image, or (height, width), in pixels, at least 128.
            scales: Box sizes of the first two maps, as fractions of the shorter side. Default:
                (0.1, 0.2), or (0.07, 0.15) if the shorter side is at least 512 pixels.
                `SSD300_COCO` has (0.07, 0.15), and `SSD512_COCO` has (0.04, 0.1).
            **options: Other attributes of the config, such as `mean`.

        Raises:
            ValueError: If a side is not an integer of at least 128, or `scales` is not two rising
                fractions below 0.9.

        Source: section 2.2, equation 4; `ssd_pascal.py` and `ssd_coco.py`.
        """
        image_size = _simplest("config", "image_size", image_size)
        sides = pair(image_size)
        if not all(isinstance(side, int) and side >= 128 for side in sides):
            raise ValueError(f"image_size (={image_size}) must be integers of at least 128 pixels")
        shorter = min(sides)
        scales = scales or ((0.1, 0.2) if shorter < 512 else (0.07, 0.15))
        if len(scales) != 2 or not 0 < scales[0] < scales[1] < 0.9:
            raise ValueError(f"scales (={scales}) must be two rising fractions below 0.9")
        maps, windows = grids(sides)
        count = len(maps)
        layers = tuple(
            ExtraLayer(f"conv{8 + i}", *(128, 256) if i else (256, 512), *window)
            for i, window in enumerate(windows)
        )
        first, second = (round(100 * scale) for scale in scales)
        increment = (90 - second) // (count - 2)
        percents = [first, *(second + k * increment for k in range(count))]
        sizes = [whole(round(shorter * percent / 100, 6)) for percent in percents]
        ratios = ((2.0,), *[(2.0, 3.0)] * (count - 3), (2.0,), (2.0,))
        columns = (MAP_NAMES[:count], *zip(*maps, strict=True), sizes[:-1], sizes[1:], ratios)
        feature_maps = tuple(FeatureMap(*row) for row in zip(*columns, strict=True))
        return cls(image_size, feature_maps, layers, **options)

    def to_dict(self) -> dict[str, Any]:
        """Returns the config as a dictionary of JSON values, which `from_dict` accepts."""
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


MAP_NAMES = ("conv4_3", "fc7", "conv8_2", "conv9_2", "conv10_2", "conv11_2", "conv12_2")

# The box sizes of SSD300 are those of examples/ssd/ssd_pascal.py and ssd_coco.py. The original code
# has no script for SSD512. Its sizes come from ports of the released models, and the rule of the
# scripts gives the same sizes. Models that were trained on COCO and fine-tuned on VOC keep the COCO
# tiling.
SSD300_VOC = SSDConfig.for_image_size(300)
SSD300_COCO = SSDConfig.for_image_size(300, (0.07, 0.15))
SSD512_VOC = SSDConfig.for_image_size(512)
SSD512_COCO = SSDConfig.for_image_size(512, (0.04, 0.1))

CONFIGS = {
    "SSD300_VOC": SSD300_VOC,
    "SSD300_COCO": SSD300_COCO,
    "SSD512_VOC": SSD512_VOC,
    "SSD512_COCO": SSD512_COCO,
}
