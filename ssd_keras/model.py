"""VGG16-SSD as a functional Keras model: the reduced VGG16, the extra layers and the heads."""

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
    """A functional model that also reports the components of its `MultiBoxLoss`.

    Localization loss, confidence loss and number of positives are metrics of the model. Keras shows
    them in the progress bar, in `evaluate` and in the history of `fit`.

    Args:
        inputs: The input `image`, [B, S, S, 3].
        outputs: The predictions, [B, P, 4 + 1 + C].
        name: Name of the model.
        **kwargs: As in `keras.Model`.
    """

    # Keras saves and reloads a subclass as a functional model only if it has this signature.
    def __init__(
        self,
        inputs: keras.KerasTensor,
        outputs: keras.KerasTensor,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        # Keras stores the dtype policies of the layers but not that of the model. `compile` scales
        # the loss only if the policy of the model asks for it.
        for layer in self.layers:
            if layer.name == "conv1_1":
                self.dtype_policy: keras.DTypePolicy = layer.dtype_policy

    @property
    def ssd_config(self) -> SSDConfig:
        """The config that the model was built with."""
        config: SSDConfig = self.get_layer("predictions").ssd_config
        return config

    @property
    def num_classes(self) -> int:
        """C, the number of classes without the background."""
        return int(self.get_layer("predictions").num_classes)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the C classes, or None. `labels[0]` is the name of class 1."""
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
        config: Config, such as `SSD300_VOC`. S is its `image_size`.
        num_classes: C, the number of classes without the background.
        weights: None for random weights, "imagenet" for the VGG16 of keras.applications, which
            Keras downloads, or the path of a file of a VGG16 or a whole SSD, as in `load_weights`.
            The classes of an SSD are mapped to `labels` by name.
        weights_project: Project that wrote the file; see `load_weights`.
        weights_labels: Class names of the file; see `load_weights`.
        weights_config: Tiling of the file; see `load_weights`.
        width: Factor for the number of filters of all layers except the heads, above 0 and at most
            4. The products are rounded to multiples of 8. The network of the paper has 1.0.
        labels: Names of the C classes, or None. The model and its files keep them.
        name: Name of the model.

    Returns:
        Model from `image`, [B, S, S, 3], RGB 0..255, to predictions, float32 [B, P, 4 + 1 + C].
        The first four values of a box are its offsets (cy, cx, h, w), divided by the variances. The
        others are its logits, background first.

    Raises:
        ValueError: If an argument is out of range, if a feature map of the config does not exist or
            has another size in the network, or if `load_weights` refuses the file.
        FileNotFoundError: If the file does not exist.
        OSError: If "imagenet" cannot be downloaded.

    Source: sections 2 and 3.1, figure 2; `VGGNetBody` and `CreateMultiBoxHead` in Caffe's
    `model_libs.py`, `AddExtraLayers` in `ssd_pascal.py`.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes (={num_classes}) must be at least 1, without the background")
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
                f"feature map {feature_map.name} is not a layer of the network: it must be one of "
                f"{', '.join(maps)}"
            )
        if features.shape[1] != feature_map.size:
            raise ValueError(
                f"feature map {feature_map.name}: size (={feature_map.size}) must be "
                f"{features.shape[1]}, the size in the network for image_size "
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


def _backbone(
    x: keras.KerasTensor, config: SSDConfig, width: float
) -> dict[str, keras.KerasTensor]:
    """Builds the layers before the heads and returns the possible feature maps by name."""
    maps = {}
    for block, (convolutions, filters) in enumerate(VGG_BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            x = _conv(x, f"conv{block}_{i}", filters * width, 3)
        maps[f"conv{block}_{convolutions}"] = x
        # "same" rounds up, as Caffe does: pool3 reduces 75 cells to 38. The pool5 of the reduced
        # network keeps the resolution.
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
        if extra.padding:  # "same" pads a layer with a stride on one side only
            x = keras.layers.ZeroPadding2D(extra.padding, name=f"{extra.name}_2_padding")(x)
        name = f"{extra.name}_2"
        x = _conv(
            x, name, extra.filters * width, extra.kernel, strides=extra.stride, padding="valid"
        )
        maps[name] = x
    return maps


def _conv(
    x: keras.KerasTensor, name: str, filters: float, kernel: int, **options: Any
) -> keras.KerasTensor:
    """Adds a convolution with ReLU. Caffe's "xavier" is LeCun's uniform initializer."""
    layer = DilatedConv2D if "dilation_rate" in options else keras.layers.Conv2D
    return layer(
        max(8, 8 * round(filters / 8)),
        kernel,
        activation="relu",
        kernel_initializer="lecun_uniform",
        name=name,
        **{"padding": "same", **options},
    )(x)


def _head(
    features: keras.KerasTensor, feature_map: FeatureMap, filters: int, name: str
) -> keras.KerasTensor:
    """Adds a convolution without activation, in float32 under any dtype policy."""
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
    """Loads a model of `ssd_vgg16` from a `.keras` file.

    Args:
        path: The file.
        compile: Whether to load the optimizer and the loss, too.

    Returns:
        The model, with its config and class names.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged or does not hold a model of `ssd_vgg16`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"model {path} does not exist: train one first")
    if not zipfile.is_zipfile(path):  # Keras's message would be that the file does not exist
        raise ValueError(f"model {path} is damaged or not a .keras file")
    try:
        model = keras.saving.load_model(path, compile=compile)
    except (KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"model {path} is damaged or of another kind: {error}") from error
    if not isinstance(model, SSD):
        raise ValueError(f"model {path} is not an SSD: it must be made by ssd_vgg16")
    return model
