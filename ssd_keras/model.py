"""VGG16-SSD: the reduced VGG16, the extra layers and the heads, as a functional Keras model."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from ssd_keras.config import FeatureMap, SSDConfig
from ssd_keras.initialization import initial_weights, named_variables
from ssd_keras.layers import DilatedConv2D, L2Normalization, Preprocessing
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.predictions import Predictions
from ssd_keras.vgg16 import VGG_BLOCKS
from ssd_keras.weights.load import load_weights


@keras.saving.register_keras_serializable(package="ssd_keras")
class SSD(keras.Model):
    """A functional model that reports the parts of the MultiBox loss beside their sum.

    Only the metrics differ from `keras.Model`: localisation loss, confidence loss and number of
    positives appear in the progress bar, in `evaluate` and in the history.
    """

    # The signature of Functional, so that Keras saves and reloads it as it does a functional model.
    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        # Keras stores the layers' policies but not the model's, by which `compile` decides whether
        # the loss is scaled.
        for layer in self.layers:
            if layer.name == "conv1_1":
                self.dtype_policy: Any = layer.dtype_policy

    @property
    def ssd_config(self) -> SSDConfig:
        """Input size, feature maps and tiling of the model."""
        config: SSDConfig = self.get_layer("predictions").ssd_config
        return config

    @property
    def num_classes(self) -> int:
        """C, the number of classes without background."""
        return int(self.get_layer("predictions").num_classes)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the C classes; `labels[0]` is class 1. None if the model has none."""
        labels: tuple[str, ...] | None = self.get_layer("predictions").labels
        return labels

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The compiled metrics and the components of a `MultiBoxLoss`."""
        loss = getattr(self, "loss", None)
        return super().metrics + (list(loss.components) if isinstance(loss, MultiBoxLoss) else [])


def ssd_vgg16(
    config: SSDConfig,
    num_classes: int,
    *,
    weights: str | os.PathLike[str] | None = None,
    weights_project: str | None = None,
    weights_labels: Sequence[str] | None = None,
    weights_config: SSDConfig | None = None,
    width: float = 1.0,
    labels: tuple[str, ...] | list[str] | None = None,
    name: str = "ssd_vgg16",
) -> SSD:
    """Builds SSD300 or SSD512 on VGG16.

    Args:
        config: Input size and tiling, such as `SSD300_VOC`.
        num_classes: C, the classes without background.
        weights: None (random), "imagenet" (keras.applications' VGG16, downloaded; its fc1 and fc2
            subsampled to fc6 and fc7) or a local file of a VGG16 or a whole SSD: see
            `load_weights`. Classes are then taken by `labels`.
        weights_project: The project whose file it is; found out by default.
        weights_labels: Class names of the file; see `load_weights`.
        weights_config: Tiling of the file; see `load_weights`.
        width: Factor on the filters of every layer but the heads, rounded to multiples of 8; 1 is
            the paper's network.
        labels: Names of the C classes; kept in the model and its files.
        name: Name of the model.

    Returns:
        A functional model from `image` [B, S, S, 3], RGB 0..255, to predictions float32
        [B, P, 4 + 1 + C]: offsets (cy, cx, h, w, divided by the variances), then logits with the
        background first.

    Raises:
        ValueError: If an argument is out of range, a feature map of the config is not of the
            size that the network produces, or the weights do not fit.
        FileNotFoundError: If `weights` names no file.
        Exception: Of Keras, if "imagenet" cannot be downloaded.

    Source: section 2 and 3.1, figure 2; `VGGNetBody` and `CreateMultiBoxHead` in Caffe's
    `model_libs.py`, `AddExtraLayers` in `ssd_pascal.py`.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes (={num_classes}) must be at least 1, without background")
    if not 0 < width <= 4:
        raise ValueError(f"width (={width}) must be above 0 and at most 4")

    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    maps = _backbone(Preprocessing(config.mean)(image), config, width)
    maps["conv4_3"] = L2Normalization(name="conv4_3_norm")(maps["conv4_3"])

    offsets, logits = [], []
    heads: list[str] = []
    for feature_map in config.feature_maps:
        features = maps.get(feature_map.name)
        if features is None:
            raise ValueError(
                f"feature map {feature_map.name} is none of the network's: {', '.join(maps)}"
            )
        if features.shape[1] != feature_map.size:
            raise ValueError(
                f"feature map {feature_map.name}: size (={feature_map.size}) must be the "
                f"{features.shape[1]} that the network produces from image_size "
                f"(={config.image_size})"
            )
        boxes = feature_map.boxes_per_location
        heads.append(feature_map.name)
        scale = heads.count(feature_map.name)  # a layer may have heads for several scales
        head = feature_map.name if scale == 1 else f"{feature_map.name}_{scale}"
        offsets.append(_head(features, feature_map, boxes * 4, f"{head}_offsets"))
        logits.append(_head(features, feature_map, boxes * (num_classes + 1), f"{head}_logits"))

    predictions = Predictions(config, num_classes, labels)(offsets + logits)
    model = SSD(inputs=image, outputs=predictions, name=name)
    if weights is None:
        variables = named_variables(model)
        for variable, array in initial_weights(model).items():
            variables[variable].assign(array)
    else:
        load_weights(
            model,
            weights,
            weights_project=weights_project,
            weights_labels=weights_labels,
            weights_config=weights_config,
        )
    return model


def _backbone(x: Any, config: SSDConfig, width: float) -> dict[str, Any]:
    """The output of every layer that a feature map may be read from, by name."""
    maps = {}
    for block, (convolutions, filters) in enumerate(VGG_BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            x = _conv(x, f"conv{block}_{i}", filters * width, 3)
        maps[f"conv{block}_{convolutions}"] = x
        # "same" is Caffe's ceiling: conv3_3's 75 cells become 38. The reduced network's pool5
        # keeps the resolution.
        size, stride = (3, 1) if block == 5 and config.atrous else (2, 2)
        x = keras.layers.MaxPooling2D(size, stride, padding="same", name=f"pool{block}")(x)
    if config.atrous:
        x = _conv(x, "fc6", 1024 * width, 3, dilation_rate=6)
        x = maps["fc7"] = _conv(x, "fc7", 1024 * width, 1)
    else:
        x = _conv(x, "fc6", 4096 * width, 7)
        x = maps["fc7"] = _conv(x, "fc7", 4096 * width, 1)
    for extra in config.extra_layers:
        x = _conv(x, f"{extra.name}_1", extra.bottleneck * width, 1)
        if extra.padding:  # "same" would pad strided layers on one side only
            x = keras.layers.ZeroPadding2D(extra.padding, name=f"{extra.name}_2_padding")(x)
        name = f"{extra.name}_2"
        x = _conv(
            x, name, extra.filters * width, extra.kernel, strides=extra.stride, padding="valid"
        )
        maps[name] = x
    return maps


def _conv(x: Any, name: str, filters: float, kernel: int, **options: Any) -> Any:
    """A convolution with ReLU. The original's "xavier" is LeCun's uniform, not Glorot's."""
    layer = DilatedConv2D if "dilation_rate" in options else keras.layers.Conv2D
    return layer(
        max(8, 8 * round(filters / 8)),
        kernel,
        activation="relu",
        kernel_initializer="lecun_uniform",
        name=name,
        **{"padding": "same", **options},
    )(x)


def _head(features: Any, feature_map: FeatureMap, filters: int, name: str) -> Any:
    """A predictor without activation; float32, so that loss and scores keep their precision."""
    connected = feature_map.fully_connected
    return keras.layers.Conv2D(
        filters * feature_map.size**2 if connected else filters,
        feature_map.size if connected else 3,
        padding="valid" if connected else "same",
        kernel_initializer="lecun_uniform",
        dtype="float32",
        name=name,
    )(features)


def load_model(path: str | os.PathLike[str], *, compile: bool = False) -> SSD:
    """Loads a `.keras` file of a model of `ssd_vgg16`.

    Args:
        path: The file.
        compile: Also load the optimizer and the loss it was saved with.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or holds another kind of model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"model {path} does not exist: train one first")
    if not zipfile.is_zipfile(path):  # Keras would say that it does not exist
        raise ValueError(f"model {path} is damaged or no .keras file")
    try:
        model = keras.saving.load_model(path, compile=compile)
    except (KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"model {path} is damaged or of another kind: {error}") from error
    if not isinstance(model, SSD):
        raise ValueError(f"model {path} is no SSD: it must be made by ssd_vgg16")
    return model
