"""Small data sets in the forms that people have them, for the tests of the sources."""

import contextlib
import importlib.util
import io
import json

from absl import flags
from PIL import Image


@contextlib.contextmanager
def loaded_script(path):
    """A command outside of the package as a module; its flags are gone afterwards."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def encoded(size=(40, 20), image_format="JPEG", **options):
    """An image file; size is (width, height)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(buffer, image_format, **options)
    return buffer.getvalue()


def write(path, content):
    """Writes text or bytes, and the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def voc_xml(objects, size=(40, 20)):
    """A VOC annotation; objects are (name, xmin, ymin, xmax, ymax) and perhaps difficult."""
    items = "".join(
        f"<object><name>{name}</name><difficult>{int(bool(difficult))}</difficult><bndbox>"
        f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
        "</bndbox></object>"
        for name, xmin, ymin, xmax, ymax, *difficult in objects
    )
    dimensions = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{dimensions}{items}</annotation>"


def write_voc(folder, xml_of_image, split="train", image=None):
    """Writes a VOC folder: image name -> annotation."""
    write(folder / "ImageSets/Main" / f"{split}.txt", "\n".join(xml_of_image) + "\n")
    for name, xml in xml_of_image.items():
        write(folder / "Annotations" / f"{name}.xml", xml)
        write(folder / "JPEGImages" / f"{name}.jpg", encoded() if image is None else image)


def coco_json(images, annotations, categories=((7, "cat"), (90, "hair drier"))):
    """COCO's ground truth; images are (id, file name), annotations (image id, category, bbox)."""
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
