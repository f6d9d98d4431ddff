"""A preview of a training run: augmented images, ground truth and matched default boxes."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from ssd_keras.augmentation.crop import MIN_IOU
from ssd_keras.augmentation.ops import Op
from ssd_keras.augmentation.resampling import INTERPOLATIONS
from ssd_keras.config import SSDConfig
from ssd_keras.data.card import read_card
from ssd_keras.data.epochs import endless_records
from ssd_keras.data.pipeline import training_sample
from ssd_keras.data.records import parse_example
from ssd_keras.drawing import class_color, contact_sheet, draw_detections
from ssd_keras.matching import match
from ssd_keras.tiling import default_boxes

CAPTION = 116  # rows below the image of a sample, for its text


def augmented_samples(
    records: list[str],
    config: SSDConfig,
    ops: tuple[Op, ...],
    *,
    seed: int = 0,
    first: int = 0,
    use_difficult: bool = True,
) -> Iterator[dict[str, Any]]:
    """Yields the augmented samples of a training run.

    Args:
        records: Directories of the record sets of the run.
        config: Configuration of the model.
        ops: Augmentation ops of the run.
        seed: Seed of the run.
        first: Index of the first sample in the run.
        use_difficult: Whether difficult objects are ground truth.

    Yields:
        The dictionaries of `augment` as NumPy arrays, with one more key: "height", the height of
        the original image in pixels.

    Raises:
        FileNotFoundError: If a record set is incomplete.
        ValueError: If a record set is damaged.
    """
    cards = [read_card(directory) for directory in records]
    positions = endless_records(records, cards, seed, skipped=first)

    @tf.autograph.experimental.do_not_convert
    def make(record: tf.Tensor, position: tf.Tensor) -> dict[str, Any]:
        sample = training_sample(record, position, config, seed, ops)
        return sample | {"height": parse_example(record)["height"]}

    for sample in positions.map(make).as_numpy_iterator():
        keep = ~sample["difficult"] | use_difficult
        yield sample | {name: sample[name][keep] for name in ("boxes", "labels", "difficult")}


def describe(params: dict[str, Any], height: int) -> str:
    """Describes the random parameters of a sample.

    Args:
        params: The "params" of a sample from `augment`, as NumPy arrays.
        height: Height of the original image in pixels.

    Returns:
        A few lines of text.
    """
    lines = [f"expand {params['canvas'][0] / height:.2f}"]
    names = ("whole image", *(f"IoU {least} or more" for least in MIN_IOU[:-1]), "anywhere")
    lines.append(f"crop {names[params['sampler']]}")
    mirror = ", mirrored" if params["mirror"] else ""
    lines.append(INTERPOLATIONS[params["interpolation"]] + mirror)
    d = params.get("distortion")
    if d is not None:
        amounts = (
            f"brightness {d.brightness:+.0f}",
            f"contrast x{d.contrast:.2f}",
            f"saturation x{d.saturation:.2f}",
            f"hue {2 * d.hue:+.0f} degrees",
        )
        order = (0, 1, 2, 3) if d.contrast_first else (0, 2, 3, 1)
        lines += [amounts[k] for k in order if d.applied[k]]
    return "\n".join(lines)


def draw_sample(sample: dict[str, Any], config: SSDConfig, labels: tuple[str, ...]) -> Image.Image:
    """Draws a sample with its ground truth, matched default boxes and random parameters.

    Ground truth has thick lines and class names. Matched default boxes have thin dashed lines in
    the color of their class. The text is below the image.

    Args:
        sample: A sample from `augmented_samples`.
        config: Configuration of the model.
        labels: Class names.

    Returns:
        An RGB image as wide as the input of the network; below the image are `CAPTION` rows.
    """
    boxes, classes = sample["boxes"], sample["labels"]
    truth = np.concatenate([boxes, classes[:, None]], axis=1, dtype=np.float32)
    defaults = default_boxes(config)
    matched = match(truth[None], defaults)[0].numpy()
    picture = Image.fromarray(sample["image"].astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    corners = defaults * np.tile(config.input_size, 2)
    for k in np.flatnonzero(matched >= 0):
        _draw_dashed(draw, corners[k].tolist(), class_color(int(classes[matched[k]])))
    for box, label in zip(boxes * np.tile(config.input_size, 2), classes, strict=True):
        ymin, xmin, ymax, xmax = np.round(box).tolist()
        corner = (xmin - 1, ymin - 1, max(xmin, xmax), max(ymin, ymax))
        draw.rectangle(corner, outline=class_color(int(label)), width=3)
    picture = draw_detections(picture, boxes, classes, labels)
    cell = Image.new("RGB", (picture.width, picture.height + CAPTION), "white")
    cell.paste(picture)
    text = f"{describe(sample['params'], sample['height'])}\n{np.sum(matched >= 0)} matched"
    draw = ImageDraw.Draw(cell)
    draw.multiline_text((4, picture.height + 4), text, fill="black", spacing=2)
    return cell


def _draw_dashed(
    draw: ImageDraw.ImageDraw, box: list[float], color: tuple[int, int, int], dash: int = 3
) -> None:
    """Draws the outline of a box (ymin, xmin, ymax, xmax) in pixels with a thin dashed line."""
    ymin, xmin, ymax, xmax = (round(side) for side in box)
    for x in range(xmin, xmax, 2 * dash):
        for y in (ymin, ymax):
            draw.line((x, y, min(x + dash - 1, xmax), y), fill=color)
    for y in range(ymin, ymax, 2 * dash):
        for x in (xmin, xmax):
            draw.line((x, y, x, min(y + dash - 1, ymax)), fill=color)


def preview_sheet(
    records: list[str],
    config: SSDConfig,
    ops: tuple[Op, ...],
    *,
    images: int,
    columns: int,
    seed: int = 0,
    first: int = 0,
    use_difficult: bool = True,
) -> Image.Image:
    """Draws samples of a training run on a contact sheet.

    Args:
        records: Directories of the record sets of the run.
        config: Configuration of the model.
        ops: Augmentation ops of the run.
        images: Number of samples, at least 1.
        columns: Number of samples in a row, at least 1.
        seed: Seed of the run.
        first: Index of the first sample in the run.
        use_difficult: Whether difficult objects are ground truth.

    Returns:
        An RGB image.

    Raises:
        FileNotFoundError: If a record set is incomplete.
        ValueError: If a record set is damaged, or `images` or `columns` is below 1.
    """
    labels = read_card(records[0]).labels
    samples = augmented_samples(
        records, config, ops, seed=seed, first=first, use_difficult=use_difficult
    )
    cells = [draw_sample(sample, config, labels) for sample in itertools.islice(samples, images)]
    return contact_sheet(cells, columns=columns, cell=max(cells[0].size))
