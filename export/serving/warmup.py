"""Command: puts requests into a SavedModel that TensorFlow Serving answers before its first client.

    python export/serving/warmup.py --model /models/ssd/1 street.jpg [MORE ...]

Without them the first requests pay for what TensorFlow does late. Asks signature `encoded` for
batches of every size that batching.config allows, made of the pictures given; writes
assets.extra/tf_serving_warmup_requests. Needs `pip install -e '.[serving]'`.
"""

import itertools
from pathlib import Path

import tensorflow as tf
from absl import flags
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from ssd_keras.commands.common import run_script
from ssd_keras.files import atomic
from ssd_keras.images import decode_image

WORDS = "pictures"

_MODEL = flags.DEFINE_string("model", None, "A SavedModel of this package.", required=True)
_NAME = flags.DEFINE_string("name", "ssd", "The model's name in models.config.")
_SIZES = flags.DEFINE_list("batch_sizes", ["1", "2", "4", "8"], "As in batching.config.")
_SIGNATURE = "encoded"


def warmup_records(
    pictures: list[bytes], batch_sizes: list[int], name: str = "ssd"
) -> list[prediction_log_pb2.PredictionLog]:
    """One recorded request a batch size.

    Args:
        pictures: Encoded images, repeated as often as a batch needs.
        batch_sizes: Images a request.
        name: The model's name on the server.

    Returns:
        As many logs as sizes, none with a response: the server does not look at it.
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
    """Writes the records beside the model's other files."""
    model = Path(_MODEL.value)
    if not (model / "saved_model.pb").is_file():
        raise FileNotFoundError(f"--model (={model}) must be a folder with a saved_model.pb")
    if not words:
        raise ValueError("name at least one picture: the requests are made of them")
    if not all(size.isdigit() and int(size) for size in _SIZES.value):
        raise ValueError(f"--batch_sizes (={_SIZES.value}) must be whole numbers from 1 on")
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
