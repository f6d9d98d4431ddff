"""Detects with a TFLite file of kind `detections` and any precision.

    python detect_litert.py --model detector.tflite street.jpg

Requires ai-edge-litert, numpy and pillow. Export the file with
`ssd-keras export tflite --kind=detections`.
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


class Detector:
    """A detector in a TFLite file.

    Args:
        path: The TFLite file.
        threads: Number of threads.

    Attributes:
        labels: Class names; `labels[0]` is class 1.

    Raises:
        OSError: If the file does not exist.
        ValueError: If it is not a TFLite file of kind `detections` from `ssd-keras export tflite`.
    """

    def __init__(self, path: Path, threads: int = 2) -> None:
        try:
            self.labels = zipfile.ZipFile(path).read("labels.txt").decode().splitlines()
        except (zipfile.BadZipFile, KeyError):
            raise ValueError(
                f"{path} has no labels: it must be made by ssd-keras export tflite"
            ) from None
        # The signature gives access by name; the order of the outputs may vary.
        self._run = Interpreter(model_path=str(path), num_threads=threads).get_signature_runner()
        self._input = self._run.get_input_details()["image"]
        if "num_detections" not in self._run.get_output_details():
            raise ValueError(f"{path} is of another kind: export it with --kind=detections")

    def detect(self, picture: Image.Image) -> list[tuple[str, float, np.ndarray]]:
        """Detects on one image.

        Args:
            picture: Image of any size. For 16-bit channels the upper 8 bits are used, as in
                TensorFlow.

        Returns:
            Label, score and box of each detection, in descending order of score. Boxes are float32
            [4]: ymin, xmin, ymax, xmax, as fractions of the image.

        Raises:
            OSError: If the image has mode I or F, whose value range is unknown.
        """
        if picture.mode in ("I", "F"):
            raise OSError(f"mode {picture.mode} has no known value range")
        size = self._input["shape"][1]
        if picture.mode.startswith("I;16"):  # Pillow would clip the values at 255
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        # Bilinear without antialiasing, as in training. `Image.resize` would apply antialiasing.
        resized = picture.convert("RGB").transform(
            (size, size), Image.Transform.EXTENT, (0, 0, *picture.size), Image.Resampling.BILINEAR
        )
        found = self._run(image=np.asarray(resized, self._input["dtype"])[None])
        count = int(found["num_detections"][0])
        names = [self.labels[k - 1] for k in found["detection_classes"][0, :count]]
        scores, boxes = (found[f"detection_{n}"][0, :count] for n in ("scores", "boxes"))
        return list(zip(names, scores.tolist(), boxes, strict=True))


def main() -> None:
    """Prints the detections on image files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pictures", nargs="+", type=Path, help="image files")
    parser.add_argument("--model", required=True, type=Path, help="TFLite file, kind detections")
    parser.add_argument("--score", default=0.5, type=float, help="minimum score to print")
    parser.add_argument("--threads", default=2, type=int, help="number of threads")
    args = parser.parse_args()
    try:
        detector = Detector(args.model, args.threads)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    for path in args.pictures:
        try:
            picture = Image.open(path)
            picture.load()  # a truncated file fails only here
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise SystemExit(f"{path}: {error}") from None
        try:
            found = detector.detect(picture)
        except OSError as error:
            raise SystemExit(f"{path}: {error}") from None
        for name, score, box in found:
            if score >= args.score:
                edges = " ".join(f"{edge:.4f}" for edge in box)
                print(f"{path}: {name} {score:.3f} at {edges} (ymin xmin ymax xmax)")


if __name__ == "__main__":
    main()
