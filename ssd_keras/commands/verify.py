r"""Compares exported files with the Keras model on the same images.

    ssd-keras verify --model=runs/voc/best.keras --records=records/voc07test \
        --out=report detector detector.tflite detector_int8.tflite

Give SavedModel folders and TFLite files. The command runs them and the Keras model on the images of
--images or --records. With --records it also computes AP. It prints a table, and writes
verification.png and verification.json, which includes the tolerance of each file. The exit code is
0 if every file agrees with the model, 1 if a file does not, and 2 after an error.
"""

import itertools
import sys

import numpy as np
from absl import flags

from ssd_keras.data.card import Notes, read_card
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample, read_samples
from ssd_keras.evaluation.verification import table, verify, write_report
from ssd_keras.inference.inputs import find_images

WORDS = "EXPORTED_FILES ..."
ERROR_CODE = 2  # exit code 1 means that a file differs

_MODEL = flags.DEFINE_string("model", None, "The .keras file.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for the report.", required=True)
_RECORDS = flags.DEFINE_string("records", None, "Record set with images and ground truth.")
_IMAGES = flags.DEFINE_list(
    "images", None, "Image files, folders or glob patterns, instead of --records."
)
_LIMIT = flags.DEFINE_integer("limit", 200, "Maximum number of images.", lower_bound=1)


def _image_samples() -> list[Sample]:
    """Reads the files of --images as samples without ground truth."""
    samples = []
    for path in find_images(_IMAGES.value):
        image = load_image(path.read_bytes(), str(path), Notes())
        if image is None:
            print(f"warning: {path} skipped: cannot be decoded", file=sys.stderr)
            continue
        nothing = np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool)
        samples.append(Sample(image.data, str(path), image.height, image.width, *nothing))
    if not samples:
        raise ValueError(
            f"--images (={','.join(_IMAGES.value)}): no image can be decoded; give other files"
        )
    return samples


def main(words: list[str]) -> int:
    """Compares the files with the model, writes the report and prints a table."""
    if (_RECORDS.value is None) == (_IMAGES.value is None):
        raise ValueError("give either --records or --images, not both")
    if not words:
        raise ValueError("name at least one SavedModel folder or .tflite file")
    samples = _image_samples() if _IMAGES.value else read_samples(_RECORDS.value)
    samples = list(itertools.islice(samples, _LIMIT.value))
    labels = read_card(_RECORDS.value).labels if _RECORDS.value else None
    report = verify(_MODEL.value, words, samples, record_labels=labels)
    write_report(report, _OUT.value)
    print(table(report))
    return 0 if report.agrees else 1
