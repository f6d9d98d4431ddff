"""Requests detections from TensorFlow Serving over HTTP and JSON.

    python client_rest.py --server http://localhost:8501 --labels labels.txt street.jpg

Requires only Python. README.md in this folder describes the inputs and outputs.
"""

import argparse
import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MAX_BATCH_SIZE = 8  # as in batching.config: the server rejects larger requests


def detect(
    server: str, pictures: list[bytes], model: str = "ssd", timeout: float = 60.0
) -> list[dict[str, Any]]:
    """Sends encoded images to the server, in requests of at most `MAX_BATCH_SIZE`.

    Args:
        server: URL of the REST port of the server, such as "http://localhost:8501".
        pictures: Encoded images, at least one: JPEG, PNG, BMP (24 or 32 bits) or GIF, any size.
        model: Name of the model in models.config.
        timeout: Timeout of each request, in seconds.

    Returns:
        One dictionary per image with the outputs of signature `encoded` as numbers and lists:
        `detection_boxes` [K, 4], `detection_scores` [K], `detection_classes` [K], `num_detections`
        and `image_decoded`.

    Raises:
        RuntimeError: If the server rejects a request. The error has the message of the server.
        OSError: If the server does not answer.
    """
    if len(pictures) > MAX_BATCH_SIZE:
        parts = (
            detect(server, pictures[i : i + MAX_BATCH_SIZE], model, timeout)
            for i in range(0, len(pictures), MAX_BATCH_SIZE)
        )
        return [found for part in parts for found in part]
    # The server decodes {"b64": ...} to bytes, which JSON cannot represent.
    instances = [{"image_bytes": {"b64": base64.b64encode(p).decode()}} for p in pictures]
    body = json.dumps({"signature_name": "encoded", "instances": instances})
    request = urllib.request.Request(
        f"{server}/v1/models/{model}:predict",
        body.encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{server}: {error.code}: {error.read().decode()}") from None


def main() -> None:
    """Prints the detections on image files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pictures", nargs="+", type=Path, help="image files")
    parser.add_argument("--server", default="http://localhost:8501", help="URL of the REST port")
    parser.add_argument("--model", default="ssd", help="name of the model in models.config")
    parser.add_argument("--labels", required=True, type=Path, help="assets/labels.txt of the model")
    parser.add_argument("--score", default=0.5, type=float, help="minimum score to print")
    args = parser.parse_args()
    try:
        labels = args.labels.read_text("utf-8").splitlines()
        predictions = detect(args.server, [p.read_bytes() for p in args.pictures], args.model)
    except (RuntimeError, OSError) as error:
        raise SystemExit(str(error)) from None
    for path, found in zip(args.pictures, predictions, strict=True):
        if not found["image_decoded"]:
            print(f"{path}: the server cannot decode this image")
        for k in range(found["num_detections"]):
            score = found["detection_scores"][k]
            if score >= args.score:
                name = labels[found["detection_classes"][k] - 1]
                box = " ".join(f"{edge:.4f}" for edge in found["detection_boxes"][k])
                print(f"{path}: {name} {score:.3f} at {box} (ymin xmin ymax xmax)")


if __name__ == "__main__":
    main()
