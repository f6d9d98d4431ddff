"""Detects objects in image files.

    ssd-keras detect --model=runs/voc/best.keras --out=found photos/ 'more/**/*.jpg'

Give the images as files, folders or glob patterns. The command writes a copy of each image with
its detections drawn, and detections.jsonl with one line per image. Boxes in the JSON are (ymin,
xmin, ymax, xmax): `box` as fractions of the image, `box_pixels` in pixels. Boxes refer to the image
as stored; its EXIF orientation is ignored. Files that cannot be decoded are reported on stderr and
skipped, and the exit code is then 2.
"""

from absl import flags

from ssd_keras.inference.detector import load_detector
from ssd_keras.inference.files import JSON_NAME, detect_files, find_images

WORDS = "IMAGES ..."

_MODEL = flags.DEFINE_string(
    "model", None, "A .keras file, a SavedModel folder or a .tflite file.", required=True
)
_OUT = flags.DEFINE_string("out", None, "Folder to write to.", required=True)
_SCORE = flags.DEFINE_float("score_threshold", 0.5, "Minimum score of a drawn detection.")
_JSON = flags.DEFINE_float("json_threshold", 0.01, "Minimum score of a detection in the JSON.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images per batch.")
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Write to a folder that is not empty, and replace files of the same names."
)


def interrupted() -> str:
    """Returns the message for Ctrl-C."""
    return f"the images drawn so far are in {_OUT.value}; {JSON_NAME} was not written"


def main(words: list[str]) -> int:
    """Detects objects and prints a summary."""
    paths = find_images(words)
    summary = detect_files(
        load_detector(_MODEL.value),
        paths,
        _OUT.value,
        score_threshold=_SCORE.value,
        json_threshold=_JSON.value,
        batch_size=_BATCH_SIZE.value,
        overwrite=_OVERWRITE.value,
    )
    print(
        f"{summary.num_images} images, {summary.num_detections} detections: "
        f"{_OUT.value}/{JSON_NAME}; {len(summary.unreadable)} files skipped"
    )
    return 2 if summary.unreadable else 0
