r"""Shows how default boxes match the objects of records, and fits a config to them.

    ssd-keras fit-boxes --records=records/mine --out=mine.json

Prints a table for the images without augmentation, and one with the training augmentation. By size
and shape, each table counts three groups of objects: those matched to a default box with an IoU of
at least 0.5, those matched only to their best default box (the bipartite step), and those without a
match. It also counts the matches of each default box. With --out the command searches for box sizes
and aspect ratios that match more objects, and writes a config for --config of the other commands.
If many objects are too small for the cells of the first map, or no object is large enough for the
last map, it proposes other source layers or a larger input, with the flag that writes such a
config: --sources or --image_size. With --plot it draws objects and default boxes. The last table
shows other input sizes with the
original's box sizes.
"""

import numpy as np
from absl import flags

from ssd_keras.augmentation.ops import AUGMENTATIONS
from ssd_keras.config import SSDConfig
from ssd_keras.config_files import CONFIG_HELP, as_config, write_config
from ssd_keras.data.box_coverage import Coverage, coverage, coverage_table, object_boxes
from ssd_keras.data.fit_boxes import fitted_config
from ssd_keras.data.source_layers import Proposal, proposals, with_image_size, with_sources

_RECORDS = flags.DEFINE_list(
    "records", None, "Record sets of the training, separated by commas.", required=True
)
_CONFIG = flags.DEFINE_string("config", "SSD300_VOC", CONFIG_HELP)
_OUT = flags.DEFINE_string("out", None, "The .json file to write the fitted config to.")
_SOURCES = flags.DEFINE_list(
    "sources",
    None,
    "Source layers, separated by commas: those of --config to keep, and possibly conv3_3.",
)
_IMAGE_SIZE = flags.DEFINE_string(
    "image_size", None, "Input size HEIGHTxWIDTH instead of that of --config, e.g. 288x512."
)
_MAX_BOXES = flags.DEFINE_integer(
    "max_boxes",
    None,
    "Largest number of default boxes. Default: that of the config before the fit.",
    lower_bound=1,
)
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation", "ssd", list(AUGMENTATIONS), "Augmentation of the training."
)
_PLOT = flags.DEFINE_string("plot", None, "Image file (.png, .svg) for the drawing.")
_LIMIT = flags.DEFINE_integer("limit", 5000, "Maximum number of images.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the augmentation.", lower_bound=0)

_LARGER = (1.0, 1.5, 2.0)  # factors on the input size for the last table


def main(words: list[str]) -> None:
    """Prints the tables, and writes the config and the drawing."""
    del words
    config = as_config(_CONFIG.value)
    if _IMAGE_SIZE.value:
        config = with_image_size(config, _sides(_IMAGE_SIZE.value))
    if _SOURCES.value:
        config = with_sources(config, _SOURCES.value)
    plain = object_boxes(_RECORDS.value, limit=_LIMIT.value)
    ops = AUGMENTATIONS[_AUGMENTATION.value]
    augmented = object_boxes(_RECORDS.value, ops, seed=_SEED.value, limit=_LIMIT.value)
    views = {"warped": plain, f"augmentation {_AUGMENTATION.value}": augmented}
    plots: dict[str, Coverage] = {}

    def show(name: str, shown: SSDConfig) -> None:
        for view, boxes in views.items():
            plots[f"{name}, {view}"] = found = coverage(boxes, shown)
            print(f"{name}, {view}: {shown.num_default_boxes} default boxes\n")
            print(coverage_table(found), end="\n\n")

    show(_CONFIG.value, config)
    if _OUT.value:
        limit = _MAX_BOXES.value or config.num_default_boxes
        fitted = fitted_config([*plain, *augmented], config, max_boxes=limit)
        show("fitted", fitted)
        for m in fitted.feature_maps:
            print(f"  {m.name}: {m.min_size} to {m.max_size}, aspect ratios {m.aspect_ratios}")
        write_config(fitted, _OUT.value)
        print(f"wrote the fitted config: use it with --config={_OUT.value}\n")
        for proposal in proposals(plain, augmented, config, fitted, max_boxes=limit):
            _print_proposal(proposal, plain)
    _print_input_sizes(config, plain)
    if _PLOT.value:
        from ssd_keras.data.coverage_plot import plot_coverage

        plot_coverage(plots, _PLOT.value)
        print(f"wrote {_PLOT.value}")


def _sides(text: str) -> tuple[int, int]:
    """Parses HEIGHTxWIDTH, or one number for a square."""
    words = text.lower().split("x")
    if len(words) > 2 or not all(word.isdecimal() for word in words):
        raise ValueError(f"--image_size (={text}) must be HEIGHTxWIDTH in pixels, as in 288x512")
    return int(words[0]), int(words[-1])


def _print_proposal(proposal: Proposal, boxes: list[np.ndarray]) -> None:
    if proposal.config is None:
        effect = f"needs --max_boxes={proposal.min_boxes} or more"
    else:
        share = coverage(boxes, proposal.config).share
        effect = f"{proposal.config.num_default_boxes} default boxes, {100 * share:.1f}% at IoU 0.5"
    print(f"proposal: {proposal.reason}\n  {proposal.flag}: {effect}\n")


def _print_input_sizes(config: SSDConfig, boxes: list[np.ndarray]) -> None:
    print("height x width      default boxes  objects at IoU 0.5")
    for factor in _LARGER:
        height, width = config.input_size
        if factor > 1:
            height, width = (8 * round(side * factor / 8) for side in (height, width))
        if min(height, width) >= 128:
            other = SSDConfig.for_image_size((height, width))
            share = coverage(boxes, other).share
            print(f"{height} x {width:<12} {other.num_default_boxes:>14} {100 * share:>18.1f}%")
