"""Draws the augmented images of a training run on a contact sheet.

    ssd-keras preview --records=records/voc0712 --out=preview.png

With the records, seed and augmentation of a training run, image k of the sheet has the pixels of
image k of that run. --first=n*B --images=B shows batch n of a run with batch size B.

Each picture shows the ground truth in thick lines, and the default boxes matched to it in thin
dashed lines of the same color. The text below it lists the random parameters: expansion, crop and
the IoU that its sampler requires, interpolation, mirror, and the photometric operations in their
order.
"""

from absl import flags

from ssd_keras.augmentation.ops import AUGMENTATIONS
from ssd_keras.config_files import CONFIG_HELP, as_config
from ssd_keras.data.preview import preview_sheet
from ssd_keras.files import atomic

_RECORDS = flags.DEFINE_list(
    "records", None, "Record sets of the run, separated by commas.", required=True
)
_OUT = flags.DEFINE_string("out", "preview.png", "PNG file to write.")
_CONFIG = flags.DEFINE_string("config", "SSD300_VOC", CONFIG_HELP)
_AUGMENTATION = flags.DEFINE_enum(
    "augmentation", "ssd", list(AUGMENTATIONS), "Augmentation of the run."
)
_USE_DIFFICULT = flags.DEFINE_bool(
    "use_difficult", True, "Whether difficult objects are ground truth."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the run.", lower_bound=0)
_FIRST = flags.DEFINE_integer("first", 0, "Index of the first image.", lower_bound=0)
_IMAGES = flags.DEFINE_integer("images", 20, "Number of images.", lower_bound=1)
_COLUMNS = flags.DEFINE_integer("columns", 5, "Images in a row.", lower_bound=1)


def main(words: list[str]) -> None:
    """Writes the contact sheet."""
    del words
    sheet = preview_sheet(
        _RECORDS.value,
        as_config(_CONFIG.value),
        AUGMENTATIONS[_AUGMENTATION.value],
        images=_IMAGES.value,
        columns=_COLUMNS.value,
        seed=_SEED.value,
        first=_FIRST.value,
        use_difficult=_USE_DIFFICULT.value,
    )
    with atomic(_OUT.value) as temporary:
        sheet.save(temporary, "PNG")
    print(f"{_OUT.value}: {_IMAGES.value} samples")
