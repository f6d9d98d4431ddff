"""Detects with MediaPipe Tasks and a TFLite file of kind `mediapipe`.

    python detect_mediapipe.py --model for_mediapipe.tflite street.jpg

Requires mediapipe. Export the file with `ssd-keras export tflite --kind=mediapipe`. The file
contains the labels and the range of the pixel values. MediaPipe has the same interface for Kotlin,
Swift and JavaScript.
"""

import argparse
from pathlib import Path

import mediapipe
from mediapipe.tasks.python import vision


def main() -> None:
    """Prints the detections on image files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pictures", nargs="+", type=Path, help="image files")
    parser.add_argument("--model", required=True, type=Path, help="TFLite file, kind mediapipe")
    parser.add_argument("--score", default=0.5, type=float, help="minimum score to print")
    args = parser.parse_args()
    options = vision.ObjectDetectorOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(args.model)),
        score_threshold=args.score,
    )
    try:
        created = vision.ObjectDetector.create_from_options(options)
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"{args.model} is not a file of kind mediapipe: {error}") from None
    with created as detector:
        for path in args.pictures:
            try:
                picture = mediapipe.Image.create_from_file(str(path))
            except (OSError, RuntimeError, ValueError) as error:
                raise SystemExit(f"{path}: {error}") from None
            for detection in detector.detect(picture).detections:
                best, box = detection.categories[0], detection.bounding_box  # in pixels
                corners = (box.origin_y, box.origin_x, box.origin_y + box.height)
                edges = " ".join(map(str, (*corners, box.origin_x + box.width)))
                print(f"{path}: {best.category_name} {best.score:.3f} at {edges} (pixels)")


if __name__ == "__main__":
    main()
