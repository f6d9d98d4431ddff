r"""Compares exported files with the Keras model on the same pictures.

    ssd-keras verify --model runs/voc/best.keras --records records/voc07test \
        --out runs/voc detector detector.tflite detector_int8.tflite

Runs the model, SavedModel folders and TFLite files on the pictures of a record set (then AP is
measured too) or of --images. Prints a table and writes verification.json and verification.png.
Exit code 1 if a file differs by more than is stated in export/README.md, 2 if that could not be
found out.
"""

import itertools
import sys

import numpy as np
from absl import flags

from ssd_keras.data.card import Notes, read_card
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample, read_samples
from ssd_keras.evaluation.verification import table, verify, write_report
from ssd_keras.inference.files import find_images

WORDS = "SavedModel folders or .tflite files"
ERROR_CODE = 2  # 1 says that a file differs

_MODEL = flags.DEFINE_string("model", None, "The .keras file.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for the report.", required=True)
_RECORDS = flags.DEFINE_string("records", None, "Record set, for pictures and AP.")
_IMAGES = flags.DEFINE_list("images", None, "Files, folders or patterns, instead of records.")
_LIMIT = flags.DEFINE_integer("limit", 200, "Most pictures that are run.", lower_bound=1)


def _pictures() -> list[Sample]:
    """The files of --images as samples without ground truth."""
    samples = []
    for path in find_images(_IMAGES.value):
        image = load_image(path.read_bytes(), str(path), Notes())
        if image is None:
            print(f"warning: {path} left out: does not decode", file=sys.stderr)
            continue
        nothing = np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool)
        samples.append(Sample(image.data, str(path), image.height, image.width, *nothing))
    if not samples:
        raise ValueError(f"none of the images of --images (={_IMAGES.value}) decodes")
    return samples


def main(words: list[str]) -> int:
    """Verifies and reports."""
    if (_RECORDS.value is None) == (_IMAGES.value is None):
        raise ValueError("give either --records or --images")
    if not words:
        raise ValueError("name at least one SavedModel folder or .tflite file")
    samples = _pictures() if _IMAGES.value else read_samples(_RECORDS.value)
    samples = list(itertools.islice(samples, _LIMIT.value))
    labels = read_card(_RECORDS.value).labels if _RECORDS.value else None
    report = verify(_MODEL.value, words, samples, record_labels=labels)
    write_report(report, _OUT.value)
    print(table(report))
    return 0 if report.agrees else 1
