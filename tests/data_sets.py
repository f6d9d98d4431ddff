"""Writes small datasets in the formats of the sources, and creates samples with images of noise."""

import io
import json

import numpy as np
from PIL import Image

from ssd_keras.data.records import Sample


def encoded(size=(40, 20), image_format="JPEG", **options):
    """Returns the content of an image file; `size` is (width, height)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(buffer, image_format, **options)
    return buffer.getvalue()


def write(path, content):
    """Writes text or bytes to a file, and creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def voc_xml(objects, size=(40, 20)):
    """A VOC annotation; objects are (name, xmin, ymin, xmax, ymax[, difficult])."""
    items = "".join(
        f"<object><name>{name}</name><difficult>{int(bool(difficult))}</difficult><bndbox>"
        f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
        "</bndbox></object>"
        for name, xmin, ymin, xmax, ymax, *difficult in objects
    )
    dimensions = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{dimensions}{items}</annotation>"


def write_voc(folder, xml_of_image, split="train", image=None):
    """Writes a VOC folder; `xml_of_image` maps image names to annotations."""
    write(folder / "ImageSets/Main" / f"{split}.txt", "\n".join(xml_of_image) + "\n")
    for name, xml in xml_of_image.items():
        write(folder / "Annotations" / f"{name}.xml", xml)
        write(folder / "JPEGImages" / f"{name}.jpg", encoded() if image is None else image)


def coco_json(images, annotations, categories=((7, "cat"), (90, "hair drier"))):
    """COCO's ground truth from images (id, file name) and annotations.

    Annotations are (image id, category id, bbox[, crowd]).
    """
    return json.dumps(
        {
            "images": [
                {"id": image_id, "file_name": name, "height": 20, "width": 40}
                for image_id, name in images
            ],
            "annotations": [
                {
                    "id": k,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": bbox,
                    "iscrowd": int(bool(crowd)),
                }
                for k, (image_id, category, bbox, *crowd) in enumerate(annotations, start=1)
            ],
            "categories": [{"id": k, "name": name} for k, name in categories],
        }
    )


def noise(seed, image_format, size=(20, 30)):
    """An image file of noise; `size` is (height, width)."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def make_samples(count, prefix="image"):
    """Samples of different noise with 0 to 3 objects, the last of them difficult."""
    for k in range(count):
        corners = np.array([[0.1, 0.1, 0.9, 0.9], [0.2, 0.3, 0.6, 0.7], [0.5, 0.1, 0.8, 0.4]])
        boxes = corners[: k % 4].astype(np.float32)
        yield Sample(
            image=noise(k, "JPEG" if k % 2 else "PNG"),
            image_id=f"{prefix}{k}",
            height=20,
            width=30,
            boxes=boxes,
            labels=np.arange(1, len(boxes) + 1),
            difficult=np.arange(1, len(boxes) + 1) == len(boxes),
        )
