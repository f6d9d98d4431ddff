"""Detects on image files.

    ssd-keras detect --model runs/voc/best.keras --out found photos/ 'more/**/*.jpg'

Takes files, folders and glob patterns. Writes each picture with its boxes, and detections.jsonl,
one line an image; boxes are (ymin, xmin, ymax, xmax), `box` in [0, 1] and `box_pixels` in pixels of
the image as stored (its EXIF orientation is ignored). Files that do not decode are named and left
out; the exit code is then 2.
"""

from absl import flags

from ssd_keras.inference.detector import load_detector
from ssd_keras.inference.files import JSON_NAME, detect_files, find_images

WORDS = "images, folders or patterns"

_MODEL = flags.DEFINE_string(
    "model", None, "A .keras file, a SavedModel or a .tflite file.", required=True
)
_OUT = flags.DEFINE_string("out", None, "Folder to write to.", required=True)
_SCORE = flags.DEFINE_float("score_threshold", 0.5, "Least score shown in the pictures.")
_JSON = flags.DEFINE_float("json_threshold", 0.01, "Least score listed in the JSON.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images at once.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Allow the folder to hold something.")


def interrupted() -> str:
    """What is left after Ctrl-C."""
    return f"the pictures drawn so far are in {_OUT.value}; {JSON_NAME} was not written"


def main(words: list[str]) -> int:
    """Finds the images, detects, and says what was written."""
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
        f"{_OUT.value}/{JSON_NAME}; {len(summary.unreadable)} files left out"
    )
    return 2 if summary.unreadable else 0
