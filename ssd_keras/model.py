"""VGG16-SSD as a functional Keras model: the reduced VGG16, the extra layers and the heads."""

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ssd_keras.config import FeatureMap, SSDConfig
from ssd_keras.config_files import ConfigLike, as_config
from ssd_keras.files import reading
from ssd_keras.initialization import initial_weights, named_variables
from ssd_keras.layers import DilatedConv2D, L2Normalization, Preprocessing
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.predictions import Predictions
from ssd_keras.truth import as_ground_truth, checked_inputs, short_errors
from ssd_keras.vgg16 import VGG_BLOCKS
from ssd_keras.weights.load import load_weights
from ssd_keras.weights.naming import EARLY_SOURCES, head_names
from ssd_keras.weights.tiling import find_contents


@keras.saving.register_keras_serializable(package="ssd_keras")
class SSD(keras.Model):
    """A functional model that also reports the components of its `MultiBoxLoss`.

    Localization loss, confidence loss and number of positives are metrics of the model. Keras shows
    them in the progress bar, in `evaluate` and in the history of `fit`.

    `fit`, `evaluate` and the other methods that compute the loss give the model's config to a
    `MultiBoxLoss` without one. They take all forms of ground truth of `as_ground_truth`, and report
    wrong ground truth in one sentence.

    Args:
        inputs: The input `image`, [B, height, width, 3].
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
    def width(self) -> float:
        """Factor for the number of filters, as in `ssd_vgg16`."""
        width: float | None = self.get_layer("predictions").width
        full = 1024 if self.ssd_config.atrous else 4096
        return width or self.get_layer("fc7").filters / full  # None in files of earlier versions

    @property
    def num_classes(self) -> int:
        """C, the number of classes without the background."""
        return int(self.get_layer("predictions").num_classes)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the C classes, or None. `labels[0]` is the name of class 1."""
        labels: tuple[str, ...] | None = self.get_layer("predictions").labels
        return labels

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the loss; `y` may have any form that `as_ground_truth` takes."""
        if isinstance(self.loss, MultiBoxLoss):
            self.loss.bind(self.ssd_config)
            y = as_ground_truth(y)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains the model, as `keras.Model.fit`."""
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras warns that it does not shuffle datasets
        with short_errors():
            return super().fit(self._checked(x, y), y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Computes the loss and the metrics, as `keras.Model.evaluate`."""
        with short_errors():
            return super().evaluate(self._checked(x, y), y, *args, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch, as `keras.Model.train_on_batch`."""
        with short_errors():
            return super().train_on_batch(self._checked(x, y), y, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Computes the loss on one batch, as `keras.Model.test_on_batch`."""
        with short_errors():
            return super().test_on_batch(self._checked(x, y), y, *args, **kwargs)

    def _checked(self, x: Any, y: Any) -> Any:
        """Gives the loss its config. With XLA it also checks `y`, which the loss cannot do then."""
        loss = getattr(self, "loss", None)
        if not isinstance(loss, MultiBoxLoss):
            return x
        loss.bind(self.ssd_config)
        return checked_inputs(x, y, self.num_classes) if self.jit_compile else x

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The compiled metrics and the components of a `MultiBoxLoss`."""
        loss = getattr(self, "loss", None)
        return super().metrics + (list(loss.components) if isinstance(loss, MultiBoxLoss) else [])


def ssd_vgg16(
    config: ConfigLike | None = None,
    num_classes: int | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    weights_project: str | None = None,
    weights_labels: Sequence[str] | None = None,
    weights_config: ConfigLike | None = None,
    width: float | None = None,
    labels: tuple[str, ...] | list[str] | None = None,
    name: str = "ssd_vgg16",
) -> SSD:
    """Builds SSD on VGG16: SSD300, SSD512, or SSD for another input size.

    Args:
        config: Config, such as `SSD300_VOC`, its name or a `.json` file. Default: that of the
            weights, if they are a `.keras` file of this package.
        num_classes: C, the number of classes without the background. Default: the number of
            `labels`.
        weights: None for random weights, "imagenet" for the VGG16 of keras.applications, which
            Keras downloads, or the path of a file of a VGG16 or a whole SSD, as in `load_weights`.
            The classes of an SSD are mapped to `labels` by name. A `.weights.h5` file of Keras
            has no config and no class names, so those of the model are assumed.
        weights_project: Project that wrote the file; see `load_weights`.
        weights_labels: Class names of the file; see `load_weights`.
        weights_config: Tiling of the file; see `load_weights`.
        width: Factor for the number of filters of all layers except the heads, above 0 and at most
            4. The products are rounded to multiples of 8. The network of the paper has 1.0. The
            default is that of the weights, if they are a `.keras` file of this package, or 1.0.
        labels: Names of the C classes, or None. The model and its files keep them. Default: those
            of the weights, if neither `labels` nor `num_classes` is given.
        name: Name of the model.

    Returns:
        Model from `image`, [B, height, width, 3], RGB 0..255, to predictions, float32
        [B, P, 4 + 1 + C]. The first four values of a box are its offsets (cy, cx, h, w), divided by
        the variances. The others are its logits, background first.

    Raises:
        ValueError: If an argument is missing or out of range, if feature maps of the config do not
            exist or have other sizes in the network, or if `load_weights` refuses the file.
        FileNotFoundError: If the file does not exist.
        OSError: If "imagenet" cannot be downloaded.

    Source: sections 2 and 3.1, figure 2; `VGGNetBody` and `CreateMultiBoxHead` in Caffe's
    `model_libs.py`, `AddExtraLayers` in `ssd_pascal.py`.
    """
    own = None
    if os.fspath(weights or "").endswith(".keras") and Path(weights or "").is_file():
        own = find_contents(weights or "")
    if own is not None:
        config = own.config if config is None else config
        width = own.width if width is None else width
        labels = own.labels if labels is None and num_classes is None else labels
    if config is None:
        raise ValueError(
            f"config is missing, and weights (={weights}) hold none: give a config such as "
            '"SSD300_VOC"'
        )
    config = as_config(config)
    if num_classes is None:
        if labels is None:
            raise ValueError("num_classes is missing: give it, or labels")
        num_classes = len(labels)
    width = 1.0 if width is None else width
    if num_classes < 1:
        raise ValueError(f"num_classes (={num_classes}) must be at least 1, without the background")
    if not 0 < width <= 4:
        raise ValueError(f"width (={width}) must be above 0 and at most 4")

    image = keras.Input((*config.input_size, 3), name="image")
    maps = _backbone(Preprocessing(config.mean)(image), config, width)
    # Early features have another scale than later ones (section 3.1, for conv4_3).
    for source in sorted({m.name for m in config.feature_maps} & {*EARLY_SOURCES, "conv4_3"}):
        maps[source] = L2Normalization(name=f"{source}_norm")(maps[source])
    _check_maps(config, maps)

    offsets, logits = [], []
    for feature_map, head in zip(config.feature_maps, head_names(config), strict=True):
        features = maps[feature_map.name]
        boxes = feature_map.boxes_per_location
        offsets.append(_head(features, feature_map, boxes * 4, f"{head}_offsets"))
        logits.append(_head(features, feature_map, boxes * (num_classes + 1), f"{head}_logits"))

    predictions = Predictions(config, num_classes, labels, width)(offsets + logits)
    model = SSD(inputs=image, outputs=predictions, name=name)
    if weights is None:
        variables = named_variables(model)
        for variable, array in initial_weights(model).items():
            variables[variable].assign(array)
    else:
        if os.fspath(weights).endswith(".weights.h5"):  # it has neither config nor class names
            weights_config = weights_config or config
            weights_labels = weights_labels or labels
        load_weights(
            model,
            weights,
            weights_project=weights_project,
            weights_labels=weights_labels,
            weights_config=None if weights_config is None else as_config(weights_config),
        )
    return model


def _check_maps(config: SSDConfig, maps: dict[str, keras.KerasTensor]) -> None:
    """Raises a ValueError that names all wrong feature maps and the right values."""
    wrong = []
    too_large = {f"{extra.name}_2" for extra in config.extra_layers} - set(maps)
    for m in config.feature_maps:
        if m.name in too_large:
            continue
        if m.name not in maps:
            raise ValueError(
                f"feature map {m.name} is not a layer of the network: it must be one of "
                f"{', '.join(maps)}"
            )
        rows, columns = maps[m.name].shape[1:3]
        if m.grid != (rows, columns):
            right = rows if rows == columns else (rows, columns)
            wrong.append(f"{m.name}: size (={m.size}) must be {right}")
    for name in sorted(too_large, key=[f"{e.name}_2" for e in config.extra_layers].index):
        wrong.append(f"{name}: its convolution is larger than the map before it")
    if wrong:
        raise ValueError(
            f"feature maps do not have the sizes in the network: {'; '.join(wrong)}, for "
            f"image_size (={config.image_size}): SSDConfig.for_image_size computes them"
        )


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
        if min(x.shape[1:3]) + 2 * extra.padding < extra.kernel:
            break  # `_check_maps` names this layer and those behind it
        x = _conv(x, f"{extra.name}_1", extra.bottleneck * width, 1)
        if extra.padding:  # with a stride, "same" would pad one side only
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
    """Adds a predictor without activation, in float32 under any dtype policy."""
    connected = feature_map.fully_connected
    return keras.layers.Conv2D(
        filters * math.prod(feature_map.grid) if connected else filters,
        feature_map.grid if connected else 3,
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
    fault = "is damaged or of another kind"
    with reading(path, "copy it again, or train a model with this version", fault=fault):
        model = keras.saving.load_model(path, compile=compile)
    if not isinstance(model, SSD):
        raise ValueError(f"model {path} is not an SSD: it must be made by ssd_vgg16")
    return model
