"""Measures torchvision's transforms for benchmark.py, in an environment that has torch.

Reads images and boxes from an .npz file. For every line on stdin, it transforms all images once and
prints the CPU time in seconds.
"""

import sys
import time

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.io import decode_image
from torchvision.transforms import v2

MEAN = (123, 117, 104)


def main(path: str, size: int) -> None:
    """Runs one pass for every line on stdin.

    Args:
        path: The .npz file with "count", "image0", ... (encoded files) and "boxes0", ... (float32
            `[G, 4]`, normalized yxyx).
        size: Side of the transformed images in pixels.
    """
    torch.set_num_threads(1)  # more threads only busy-wait at this image size
    with np.load(path, allow_pickle=False) as arrays:
        files = [torch.from_numpy(arrays[f"image{k}"]) for k in range(int(arrays["count"]))]
        boxes = [torch.from_numpy(arrays[f"boxes{k}"]) for k in range(len(files))]
    transform = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill={tv_tensors.Image: MEAN, "others": 0}),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
            v2.Resize((size, size), antialias=True),
            v2.ToDtype(torch.float32),
        ]
    )
    for _ in sys.stdin:
        start = time.process_time()
        for file, yxyx in zip(files, boxes, strict=True):
            image = tv_tensors.Image(decode_image(file, "RGB"))
            height, width = image.shape[-2:]
            xyxy = yxyx[:, [1, 0, 3, 2]] * torch.tensor([width, height, width, height])
            corners = tv_tensors.BoundingBoxes(xyxy, format="XYXY", canvas_size=(height, width))
            transform(image, {"boxes": corners, "labels": torch.ones(len(xyxy), dtype=torch.int64)})
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
