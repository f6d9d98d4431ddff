"""Records warm-up requests in a SavedModel, which TensorFlow Serving runs after loading it.

    python warmup.py --model=/models/ssd/1 street.jpg [MORE ...]

TensorFlow initializes parts of a model when it runs for the first time. Without warm-up, the first
clients wait for this. The requests call signature `encoded` with batches of the given images, one
for each batch size in batching.config. They are written to
assets.extra/tf_serving_warmup_requests. Requires tensorflow-serving-api.
"""

import itertools
from pathlib import Path

import tensorflow as tf
from absl import flags
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from ssd_keras.commands.common import run_script
from ssd_keras.files import atomic
from ssd_keras.images import decode_image

WORDS = "IMAGES ..."

_MODEL = flags.DEFINE_string(
    "model", None, "SavedModel folder of ssd-keras export saved_model.", required=True
)
_NAME = flags.DEFINE_string("name", "ssd", "Name of the model in models.config.")
_SIZES = flags.DEFINE_list(
    "batch_sizes", ["1", "2", "4", "8"], "Batch sizes; allowed_batch_sizes in batching.config."
)
_SIGNATURE = "encoded"


def warmup_records(
    pictures: list[bytes], batch_sizes: list[int], name: str = "ssd"
) -> list[prediction_log_pb2.PredictionLog]:
    """Creates one request for each batch size.

    Args:
        pictures: Encoded images, repeated in turn to fill a batch.
        batch_sizes: Number of images in each request.
        name: Name of the model in models.config.

    Returns:
        One log entry per batch size. The entries have no response, because the server needs only
        the requests.
    """
    logs = []
    for size in batch_sizes:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.model_spec.signature_name = _SIGNATURE
        batch = list(itertools.islice(itertools.cycle(pictures), size))
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(batch, tf.string, [size]))
        log = prediction_log_pb2.PredictLog(request=request)
        logs.append(prediction_log_pb2.PredictionLog(predict_log=log))
    return logs


def main(words: list[str]) -> None:
    """Writes the requests into the folder of the SavedModel."""
    model = Path(_MODEL.value)
    if not (model / "saved_model.pb").is_file():
        raise FileNotFoundError(f"--model (={model}) must be a folder with a saved_model.pb")
    if not words:
        raise ValueError("give at least one image: the requests consist of them")
    if not all(size.isdigit() and int(size) for size in _SIZES.value):
        raise ValueError(
            f"--batch_sizes (={','.join(_SIZES.value)}) must be integers of at least 1"
        )
    pictures = [Path(name).read_bytes() for name in words]
    for name, picture in zip(words, pictures, strict=True):
        try:
            decode_image(picture)
        except tf.errors.InvalidArgumentError:
            raise ValueError(f"{name} is not a JPEG, PNG, BMP or GIF image") from None
    logs = warmup_records(pictures, [int(size) for size in _SIZES.value], _NAME.value)
    path = model / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
    print(f"{path}: {len(logs)} requests of {', '.join(_SIZES.value)} images")


if __name__ == "__main__":
    run_script()
