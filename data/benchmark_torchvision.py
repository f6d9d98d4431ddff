"""The other side of benchmark.py: torchvision's transforms, in a Python that has torch.

Reads images and boxes from an .npz, then answers every line on stdin with the CPU-seconds that one
pass over them took.
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
    """Serves passes until stdin ends."""
    torch.set_num_threads(1)  # its own threads only wait, busily, on images of this size
    with np.load(path, allow_pickle=False) as held:
        files = [torch.from_numpy(held[f"image{k}"]) for k in range(int(held["count"]))]
        boxes = [torch.from_numpy(held[f"boxes{k}"]) for k in range(len(files))]
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
