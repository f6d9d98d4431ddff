"""Asks a TensorFlow Serving server for detections, over HTTP and JSON. A file to copy.

    python client_rest.py --server http://localhost:8501 --labels labels.txt street.jpg

Needs nothing but Python; the contract is in export/README.md.
"""

import argparse
import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MAX_BATCH_SIZE = 8  # of batching.config: the server refuses a request of more


def detect(
    server: str, pictures: list[bytes], model: str = "ssd", timeout: float = 60.0
) -> list[dict[str, Any]]:
    """Sends encoded images, in requests of as many as batching.config allows.

    Args:
        server: Address of the server's REST port.
        pictures: B images, at least one: JPEG, PNG, BMP (24 or 32 bits) or GIF of any sizes.
        model: The model's name in the server's models.config.
        timeout: Seconds to wait for each request.

    Returns:
        The outputs of signature `encoded` image by image, as numbers and lists.

    Raises:
        RuntimeError: With the server's own message, if it refuses.
        OSError: If there is no server.
    """
    if len(pictures) > MAX_BATCH_SIZE:
        parts = (
            detect(server, pictures[i : i + MAX_BATCH_SIZE], model, timeout)
            for i in range(0, len(pictures), MAX_BATCH_SIZE)
        )
        return [found for part in parts for found in part]
    # Bytes cannot stand in JSON: {"b64": ...} is what the server turns back into them.
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
    """Prints what is found on the pictures named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--server", default="http://localhost:8501", help="address of REST")
    parser.add_argument("--model", default="ssd", help="the name in models.config")
    parser.add_argument("--labels", required=True, type=Path, help="assets/labels.txt of the model")
    parser.add_argument("--score", default=0.5, type=float, help="least score printed")
    args = parser.parse_args()
    try:
        labels = args.labels.read_text("utf-8").splitlines()
        predictions = detect(args.server, [p.read_bytes() for p in args.pictures], args.model)
    except (RuntimeError, OSError) as error:
        raise SystemExit(str(error)) from None
    for path, found in zip(args.pictures, predictions, strict=True):
        if not found["image_decoded"]:
            print(f"{path}: not an image that the server reads")
        for k in range(found["num_detections"]):
            score = found["detection_scores"][k]
            if score >= args.score:
                name = labels[found["detection_classes"][k] - 1]
                box = " ".join(f"{edge:.4f}" for edge in found["detection_boxes"][k])
                print(f"{path}: {name} {score:.3f} at {box} (ymin xmin ymax xmax)")


if __name__ == "__main__":
    main()
