"""Compares the predictions of torchvision's SSD300 with those of this package.

    python scripts/parity_torchvision.py write FOLDER IMAGE ... [--vgg vgg16.npz]
    python scripts/parity_torchvision.py compare FOLDER

PyTorch and TensorFlow may be in separate environments. `write` runs torchvision on images and
writes its weights and predictions. `compare` loads the weights into the model of this package and
compares the predictions.

The weights are random. --vgg inserts the convolutions of keras.applications' VGG16
(`block1_conv1/kernel` and so on), which gives features and offsets as large as those of a trained
network. Prediction and suppression are torchvision's own code with two changes, so that the results
can be compared: boxes are not clipped before suppression, and a class is not limited to 400
candidates.
"""

import argparse
import importlib.util
import json
import pathlib
import sys

import numpy as np


def write(folder, pictures, vgg):
    import torch
    from PIL import Image
    from torchvision.models.detection import ssd, ssd300_vgg16

    torch.manual_seed(0)
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=91).eval()
    generator = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("head") and name.endswith("bias"):
                parameter.copy_(torch.tensor(generator.normal(0, 0.5, parameter.shape)))
        model.backbone.scale_weight.copy_(torch.tensor(generator.uniform(5, 30, 512)))
        if vgg:
            load_vgg(model, np.load(vgg))
            # Without this factor, VGG features give random logits and offsets of absurd size.
            model.backbone.extra[0][7][1].weight.mul_(0.02)
    images = np.stack(
        [np.asarray(Image.open(p).convert("RGB").resize((300, 300))) for p in pictures]
    )
    model.topk_candidates = 10**6
    ssd.box_ops = Unclipped(ssd.box_ops)
    with torch.inference_mode():
        inputs = [torch.tensor(i.transpose(2, 0, 1) / 255, dtype=torch.float32) for i in images]
        batch, _ = model.transform(inputs)
        features = list(model.backbone(batch.tensors).values())
        raw = model.head(features)
        detections = model(inputs)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "weights.pth")
    write_safetensors(model.state_dict(), folder / "weights.safetensors")
    np.savez(
        folder / "expected.npz",
        images=images,
        offsets=raw["bbox_regression"].numpy(),
        logits=raw["cls_logits"].numpy(),
        boxes=np.stack([d["boxes"].numpy() for d in detections]) / 300,
        scores=np.stack([d["scores"].numpy() for d in detections]),
        classes=np.stack([d["labels"].numpy() for d in detections]),
    )
    print(f"wrote the predictions for {len(images)} images and {folder / 'weights.pth'}")


def write_safetensors(state_dict, path):
    header, data = {}, b""
    for name, tensor in state_dict.items():
        start, data = len(data), data + tensor.numpy().tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, len(data)],
        }
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


class Unclipped:
    """torchvision's box operations, except that clipping does nothing."""

    def __init__(self, box_ops):
        self.box_ops = box_ops

    def __getattr__(self, name):
        return getattr(self.box_ops, name)

    @staticmethod
    def clip_boxes_to_image(boxes, size):
        return boxes


def load_vgg(model, vgg):
    import torch

    backbone = model.backbone
    layers = [m for m in backbone.features if isinstance(m, torch.nn.Conv2d)]
    layers += [backbone.extra[0][i] for i in (1, 3, 5)]
    names = sorted({name.split("/")[0] for name in vgg})
    for name, layer in zip(names, layers, strict=True):
        kernel = torch.tensor(vgg[f"{name}/kernel"]).permute(3, 2, 0, 1)
        layer.weight.copy_(kernel.flip(1) if name == "block1_conv1" else kernel)
        layer.bias.copy_(torch.tensor(vgg[f"{name}/bias"]))


def compare(folder):
    import tensorflow as tf

    from ssd_keras.class_names import COCO_ID_NAMES
    from ssd_keras.config import SSD300_COCO
    from ssd_keras.detections import DetectionDecoder
    from ssd_keras.model import ssd_vgg16
    from ssd_keras.predictions import split_predictions
    from ssd_keras.tiling import default_boxes
    from ssd_keras.weights.load import load_weights

    expected = dict(np.load(folder / "expected.npz"))
    model = ssd_vgg16(SSD300_COCO, 90, labels=COCO_ID_NAMES)
    has_torch = importlib.util.find_spec("torch") is not None
    print(load_weights(model, folder / f"weights.{'pth' if has_torch else 'safetensors'}"))
    predictions = model.predict(expected["images"], verbose=0)
    offsets, logits = (t.numpy() for t in split_predictions(tf.constant(predictions)))
    order = [1, 0, 3, 2]
    # torchvision clips the sizes of default boxes that exceed the image, and `load_weights` recodes
    # the offsets of these boxes. Their offsets cannot be compared, but their decoded boxes can.
    boxes = default_boxes(SSD300_COCO)
    alike = (boxes[:, 2:] - boxes[:, :2] <= 1).all(axis=1)
    print(f"{(~alike).sum()} of {len(alike)} default boxes are larger than the image")
    agreed = [
        report("offsets", offsets[:, alike], expected["offsets"][:, alike][..., order]),
        report("logits", logits, expected["logits"]),
    ]

    found = DetectionDecoder(SSD300_COCO)(predictions)
    found = {name: value.numpy() for name, value in found.items()}
    expected["boxes"] = np.clip(expected["boxes"][..., order], 0, 1)
    for i in range(len(predictions)):  # compared in any order, since scores may be nearly equal
        same = found["classes"][i][:, None] == expected["classes"][i]
        boxes = np.abs(found["boxes"][i][:, None] - expected["boxes"][i]).max(axis=-1)
        scores = np.abs(found["scores"][i][:, None] - expected["scores"][i])
        ours, theirs = found["num_detections"][i], len(expected["scores"][i])
        matched = pairs((same & (boxes < 1e-3) & (scores < 1e-4))[:ours], boxes[:ours])
        print(
            f"image {i}: {matched} equal detections of {ours} and torchvision's {theirs}", end="; "
        )
        agreed.append(matched == ours == theirs)
        print(f"scores {expected['scores'][i].min():.3f} to {expected['scores'][i].max():.3f}")

    return all(agreed)


def pairs(same, distance):
    """Counts one-to-one pairs of equal detections, nearest first, from matrices [N, M]."""
    left, count = np.where(same, distance, np.inf), 0
    while np.isfinite(left).any():
        ours, theirs = np.unravel_index(left.argmin(), left.shape)
        left[ours], left[:, theirs] = np.inf, np.inf
        count += 1
    return count


def report(name, ours, theirs):
    difference = np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1)
    print(
        f"{name}: {theirs.min():.2f} to {theirs.max():.2f}, largest difference "
        f"{difference.max():.1e} relative to max(1, |value|)"
    )
    return difference.max() < 1e-3


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["write", "compare"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--vgg")
    arguments = parser.parse_args()
    if arguments.action == "write":
        write(arguments.folder, arguments.pictures, arguments.vgg)
    elif not compare(arguments.folder):
        sys.exit("the predictions differ")
