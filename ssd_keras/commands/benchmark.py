"""Measures the speed of a detector and of its stages, as table 7 of the paper does.

    ssd-keras benchmark --model=detector photos/

Give the images as files, folders or glob patterns; the first 64 are used. Without images the
command draws synthetic ones. The stages are the forward pass, decoding with suppression, and end to
end from encoded images to detections. For a Keras model the command also prints the share of the
base network in the forward pass, which is about 80 % in the paper. The time of decoding with
suppression depends on the number of boxes above the score threshold, so it has little meaning for
an untrained model.
"""

from absl import flags

from ssd_keras.data.sources.shapes import draw_shapes
from ssd_keras.inference.benchmark import fill_batch, time_stages
from ssd_keras.inference.inputs import find_images
from ssd_keras.inference.stages import BASE, FORWARD, stages_of

WORDS = "[IMAGES ...]"

_MODEL = flags.DEFINE_string(
    "model", None, "A .keras file, a SavedModel folder or a .tflite file.", required=True
)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "8"], "Batch sizes to measure.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Timed calls of each stage for each batch size.")
_OPENVINO = flags.DEFINE_bool("openvino", False, "Run a .tflite file of kind raw with OpenVINO.")

_MAX_IMAGES = 64


def main(words: list[str]) -> None:
    """Times the stages and prints one line for each stage and batch size."""
    if not all(size.isdecimal() for size in _BATCH_SIZES.value):
        raise ValueError(f"--batch_sizes (={','.join(_BATCH_SIZES.value)}) must be integers")
    if words:
        images = [path.read_bytes() for path in find_images(words)[:_MAX_IMAGES]]
    else:
        images = [sample.image for sample in draw_shapes(8, seed=0)]
    print(_MODEL.value)
    for size in map(int, _BATCH_SIZES.value):
        stages = stages_of(_MODEL.value, fill_batch(images, size), openvino=_OPENVINO.value)
        timings = {t.stage: t for t in time_stages(stages, size, _REPEATS.value)}
        print(*timings.values(), sep="\n")
        if BASE in timings:
            part = timings[BASE].median / timings[FORWARD].median
            print(f"batch {size:3d}  base network: {part:.0%} of the forward pass")
