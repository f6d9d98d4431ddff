"""Configs of the paper's ablations (section 3.2, tables 2 and 3) and comparisons (section 4)."""

import dataclasses

from ssd_keras.config import SSD300_VOC, ExtraLayer, FeatureMap, SSDConfig


def _without_ratios(config: SSDConfig, *ratios: float) -> SSDConfig:
    """Returns the config without the default boxes of some aspect ratios."""
    maps = tuple(
        dataclasses.replace(m, aspect_ratios=tuple(r for r in m.aspect_ratios if r not in ratios))
        for m in config.feature_maps
    )
    return dataclasses.replace(config, feature_maps=maps)


# Table 2: 4 default boxes per cell without ratio 3, and 2 without the ratios 2 and 3.
NO_RATIO_3 = _without_ratios(SSD300_VOC, 3)
NO_RATIOS = _without_ratios(SSD300_VOC, 2, 3)

# Table 2, without the a-trous algorithm: pool5 halves the resolution, so fc7 has 10 x 10 cells, as
# conv8_2 of SSD300 has. conv5_3 is an additional source layer. The sizes of the feature maps and
# the default boxes remain those of SSD300.
FULL_VGG = dataclasses.replace(
    SSD300_VOC,
    atrous=False,
    feature_maps=tuple(
        dataclasses.replace(feature_map, name=name)
        for feature_map, name in zip(
            SSD300_VOC.feature_maps,
            ("conv4_3", "conv5_3", "fc7", "conv8_2", "conv9_2", "conv10_2"),
            strict=True,
        )
    ),
    extra_layers=(
        ExtraLayer("conv8", 256, 512, kernel=3, stride=2, padding=1),
        ExtraLayer("conv9", 128, 256, kernel=3, stride=2, padding=1),
        ExtraLayer("conv10", 128, 256, kernel=3, stride=1, padding=0),
    ),
)


def _fewer_maps(maps: tuple[FeatureMap, ...]) -> SSDConfig:
    """Returns SSD300 with the given feature maps and only the extra layers that they need."""
    used = {m.name.removesuffix("_2") for m in maps}
    extra = SSD300_VOC.extra_layers
    count = max([i for i, layer in enumerate(extra, start=1) if layer.name in used], default=0)
    return dataclasses.replace(SSD300_VOC, feature_maps=maps, extra_layers=extra[:count])


# Table 3: the coarsest source layers are removed. The paper gives the numbers of default boxes
# (8764, 8942, 9864, 9025, 8664), but not their tiling. Here the coarsest map that is left takes the
# scales of the removed maps, with the aspect ratios that give the paper's numbers.
_CONV4_3, _FC7, _CONV8_2, _CONV9_2, _CONV10_2, _CONV11_2 = SSD300_VOC.feature_maps


def _scale_of(
    feature_map: FeatureMap, other: FeatureMap, aspect_ratios: tuple[float, ...]
) -> FeatureMap:
    """Returns a feature map with the box sizes of another one and the given aspect ratios."""
    return dataclasses.replace(
        feature_map,
        min_size=other.min_size,
        max_size=other.max_size,
        aspect_ratios=aspect_ratios,
    )


FIVE_MAPS = _fewer_maps(
    (_CONV4_3, _FC7, _CONV8_2, _CONV9_2, _CONV10_2, _scale_of(_CONV10_2, _CONV11_2, (2.0,)))
)
FOUR_MAPS = _fewer_maps(
    (
        *(_CONV4_3, _FC7, _CONV8_2, _CONV9_2),
        _scale_of(_CONV9_2, _CONV10_2, (2.0, 3.0)),
        _scale_of(_CONV9_2, _CONV11_2, (2.0,)),
    )
)
THREE_MAPS = _fewer_maps(
    (
        _CONV4_3,
        *(_scale_of(_FC7, m, (2.0,)) for m in (_FC7, _CONV8_2)),
        *(_scale_of(_CONV8_2, m, (2.0,)) for m in (_CONV9_2, _CONV10_2, _CONV11_2)),
    )
)
# The paper's number needs 9 default boxes per cell of fc7: three scales with 3 boxes each (a square
# and two boxes of ratio 2), without the second, larger square.
TWO_MAPS = _fewer_maps(
    (
        _CONV4_3,
        *(FeatureMap("fc7", 19, 16, size, None, (2.0,)) for size in (60, 145, 230)),
    )
)
ONE_MAP = _fewer_maps(tuple(_scale_of(_FC7, m, (2.0,)) for m in SSD300_VOC.feature_maps))

# Section 4: SSD with one default box per cell of the topmost feature map is similar to OverFeat.
# conv10_2 is the topmost map of SSD300 with more than one cell.
ONE_BOX = _fewer_maps((FeatureMap("conv10_2", 3, 100, 213, None, ()),))

# Section 4: a fully connected predictor on the whole topmost feature map, without aspect ratios, is
# similar to YOLO. Here it has 25 cells with two squares each.
CONNECTED = _fewer_maps((FeatureMap("conv9_2", 5, 64, 111, 213, (), fully_connected=True),))
