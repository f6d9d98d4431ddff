"""Requests detections from TensorFlow Serving over gRPC.

    python client_grpc.py --server localhost:8500 --labels labels.txt street.jpg

Requires only tensorflow-serving-api. Clients in other languages need the .proto files of TensorFlow
Serving. README.md in this folder describes the inputs and outputs.
"""

import argparse
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MAX_BATCH_SIZE = 8  # as in batching.config: the server rejects larger requests


def detect(
    channel: grpc.Channel, pictures: list[bytes], model: str = "ssd", timeout: float = 60.0
) -> dict[str, np.ndarray]:
    """Sends encoded images to the server, in requests of at most `MAX_BATCH_SIZE`.

    Args:
        channel: Channel to the gRPC port of the server.
        pictures: B encoded images, at least one: JPEG, PNG, BMP (24 or 32 bits) or GIF, any size.
        model: Name of the model in models.config.
        timeout: Timeout of each request, in seconds.

    Returns:
        The outputs of signature `encoded` by name: `detection_boxes` float32 [B, K, 4],
        `detection_scores` float32 [B, K], `detection_classes` int32 [B, K], `num_detections` int32
        [B] and `image_decoded` bool [B].

    Raises:
        grpc.RpcError: If a request fails. The error has the status code of the server.
    """
    if len(pictures) > MAX_BATCH_SIZE:
        parts = [
            detect(channel, pictures[i : i + MAX_BATCH_SIZE], model, timeout)
            for i in range(0, len(pictures), MAX_BATCH_SIZE)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "encoded"
    tensor = tf.make_tensor_proto(pictures, tf.string, [len(pictures)])
    request.inputs["image_bytes"].CopyFrom(tensor)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = stub.Predict(request, timeout=timeout)
    return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}


def main() -> None:
    """Prints the detections on image files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pictures", nargs="+", type=Path, help="image files")
    parser.add_argument("--server", default="localhost:8500", help="host:port of gRPC")
    parser.add_argument("--model", default="ssd", help="name of the model in models.config")
    parser.add_argument("--labels", required=True, type=Path, help="assets/labels.txt of the model")
    parser.add_argument("--score", default=0.5, type=float, help="minimum score to print")
    args = parser.parse_args()
    # Several large photographs exceed the default message size of gRPC, 4 MB.
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    try:
        labels = args.labels.read_text("utf-8").splitlines()
        pictures = [path.read_bytes() for path in args.pictures]
        with grpc.insecure_channel(args.server, options) as channel:
            found = detect(channel, pictures, args.model)
    except OSError as error:
        raise SystemExit(str(error)) from None
    except grpc.RpcError as error:
        raise SystemExit(f"{args.server}: {error.code().name}: {error.details()}") from None
    for i, path in enumerate(args.pictures):
        if not found["image_decoded"][i]:
            print(f"{path}: the server cannot decode this image")
        for k in range(int(found["num_detections"][i])):
            score = float(found["detection_scores"][i, k])
            if score >= args.score:
                name = labels[int(found["detection_classes"][i, k]) - 1]
                box = " ".join(f"{edge:.4f}" for edge in found["detection_boxes"][i, k])
                print(f"{path}: {name} {score:.3f} at {box} (ymin xmin ymax xmax)")


if __name__ == "__main__":
    main()
