"""Detects with a TFLite file of kind `detections`, any precision. A file to copy.

    python detect_litert.py --model detector.tflite street.jpg

Needs ai-edge-litert, numpy and pillow; the contract is in export/README.md.
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


class Detector:
    """A TFLite file with its labels.

    Args:
        path: The file.
        threads: Cores to use.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is another one.
    """

    def __init__(self, path: Path, threads: int = 2) -> None:
        try:
            self.labels = zipfile.ZipFile(path).read("labels.txt").decode().splitlines()
        except (zipfile.BadZipFile, KeyError):
            raise ValueError(
                f"{path} has no labels: it must be a file of export/tflite.py"
            ) from None
        # The signature's own names: the order of outputs is the converter's.
        self._run = Interpreter(model_path=str(path), num_threads=threads).get_signature_runner()
        self._input = self._run.get_input_details()["image"]
        if "num_detections" not in self._run.get_output_details():
            raise ValueError(f"{path} is of another kind: export it with --kind detections")

    def detect(self, picture: Image.Image) -> list[tuple[str, float, np.ndarray]]:
        """Label, score and box of each detection, best first.

        Args:
            picture: Of any size; of 16 bits the upper 8 are taken, as TensorFlow does.

        Returns:
            Boxes are float32 [4]: ymin, xmin, ymax, xmax in [0, 1].

        Raises:
            OSError: If the picture is of mode I or F, whose range is unknown.
        """
        if picture.mode in ("I", "F"):
            raise OSError(f"mode {picture.mode} has no known range")
        size = self._input["shape"][1]
        # As the network was trained: neighbouring pixels are mixed. `resize` would blur more.
        if picture.mode.startswith("I;16"):  # Pillow would cut them off at 255
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        resized = picture.convert("RGB").transform(
            (size, size), Image.Transform.EXTENT, (0, 0, *picture.size), Image.Resampling.BILINEAR
        )
        found = self._run(image=np.asarray(resized, self._input["dtype"])[None])
        count = int(found["num_detections"][0])
        names = [self.labels[k - 1] for k in found["detection_classes"][0, :count]]
        scores, boxes = (found[f"detection_{n}"][0, :count] for n in ("scores", "boxes"))
        return list(zip(names, scores.tolist(), boxes, strict=True))


def main() -> None:
    """Prints what is found on the pictures named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--model", required=True, type=Path, help="TFLite file, kind detections")
    parser.add_argument("--score", default=0.5, type=float, help="least score printed")
    parser.add_argument("--threads", default=2, type=int, help="cores to use")
    args = parser.parse_args()
    try:
        detector = Detector(args.model, args.threads)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    for path in args.pictures:
        try:
            picture = Image.open(path)
            picture.load()  # a file that is cut off fails only here
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
