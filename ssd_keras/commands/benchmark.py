"""Measures the speed of a detector, from encoded images to detections.

    ssd-keras benchmark --model=detector photos/

Give the images as files, folders or glob patterns; the first 64 are used. Without images the
command draws synthetic ones.
"""

from absl import flags

from ssd_keras.data.sources.shapes import draw_shapes
from ssd_keras.inference.benchmark import time_detector
from ssd_keras.inference.detector import load_detector
from ssd_keras.inference.inputs import find_images

WORDS = "[IMAGES ...]"

_MODEL = flags.DEFINE_string(
    "model", None, "A .keras file, a SavedModel folder or a .tflite file.", required=True
)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "8"], "Batch sizes to measure.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Timed calls for each batch size.")

_MAX_IMAGES = 64


def main(words: list[str]) -> None:
    """Times the detector and prints one line for each batch size."""
    if not all(size.isdecimal() for size in _BATCH_SIZES.value):
        raise ValueError(f"--batch_sizes (={','.join(_BATCH_SIZES.value)}) must be integers")
    detector = load_detector(_MODEL.value)
    if words:
        images = [path.read_bytes() for path in find_images(words)[:_MAX_IMAGES]]
    else:
        images = [sample.image for sample in draw_shapes(8, seed=0)]
    for size in map(int, _BATCH_SIZES.value):
        print(f"{_MODEL.value}  {time_detector(detector, images, size, _REPEATS.value)}")
