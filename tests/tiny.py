"""Configs of SSD for images of 64 x 64 pixels, which cost a twentieth of SSD300."""

from ssd_keras.config import SSD300_VOC, FeatureMap, SSDConfig

TINY = SSDConfig(
    image_size=64,
    feature_maps=(
        FeatureMap("conv4_3", 8, 8, 8, 16, (2.0,)),
        FeatureMap("fc7", 4, 16, 16, 28, (2.0, 3.0)),
        FeatureMap("conv8_2", 2, 32, 28, 44, (2.0, 3.0)),
        FeatureMap("conv9_2", 1, 64, 44, 60, (2.0,)),
    ),
    extra_layers=SSD300_VOC.extra_layers[:2],
)

# Fewer feature maps, for tests that convert the network often, such as those of the exporters.
SSD64 = SSDConfig(
    64,
    (
        FeatureMap("conv4_3", 8, 8, 10, 20, (2.0,)),
        FeatureMap("fc7", 4, 16, 20, 40, (2.0, 3.0)),
        FeatureMap("conv8_2", 2, 32, 40, 60, (2.0,)),
    ),
    SSD300_VOC.extra_layers[:1],
)
