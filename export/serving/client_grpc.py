"""Asks a TensorFlow Serving server for detections, over gRPC. A file to copy.

    python client_grpc.py --server localhost:8500 --labels labels.txt street.jpg

Needs only `pip install tensorflow-serving-api`, or the three .proto files compiled for another
language; the contract is in export/README.md.
"""

import argparse
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MAX_BATCH_SIZE = 8  # of batching.config: the server refuses a request of more


def detect(
    channel: grpc.Channel, pictures: list[bytes], model: str = "ssd", timeout: float = 60.0
) -> dict[str, np.ndarray]:
    """Sends encoded images, in requests of as many as batching.config allows.

    Args:
        channel: To the server's gRPC port.
        pictures: B images, at least one: JPEG, PNG, BMP (24 or 32 bits) or GIF of any sizes.
        model: The model's name in the server's models.config.
        timeout: Seconds to wait for each request.

    Returns:
        The outputs of signature `encoded`, each [B, ...].

    Raises:
        grpc.RpcError: As the server says: UNAVAILABLE, NOT_FOUND, INVALID_ARGUMENT and so on.
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
    """Prints what is found on the pictures named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--server", default="localhost:8500", help="host:port of gRPC")
    parser.add_argument("--model", default="ssd", help="the name in models.config")
    parser.add_argument("--labels", required=True, type=Path, help="assets/labels.txt of the model")
    parser.add_argument("--score", default=0.5, type=float, help="least score printed")
    args = parser.parse_args()
    # A request of several large photos is beyond gRPC's usual 4 MB.
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
            print(f"{path}: not an image that the server reads")
        for k in range(int(found["num_detections"][i])):
            score = float(found["detection_scores"][i, k])
            if score >= args.score:
                name = labels[int(found["detection_classes"][i, k]) - 1]
                box = " ".join(f"{edge:.4f}" for edge in found["detection_boxes"][i, k])
                print(f"{path}: {name} {score:.3f} at {box} (ymin xmin ymax xmax)")


if __name__ == "__main__":
    main()
