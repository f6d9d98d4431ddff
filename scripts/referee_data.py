"""Comparisons of augmentation and evaluation with the original, for `referee.py`."""

import json
import pathlib
import subprocess

import numpy as np
import tensorflow as tf
from referee_nets import EVALUATION, data, inputs
from referee_original import Original, caffe_label, label_blob

from ssd_keras.augmentation.ops import SSD_OPS
from ssd_keras.config import SSD300_VOC, SSD512_VOC, SSDConfig
from ssd_keras.data.card import read_card
from ssd_keras.data.epochs import endless_records
from ssd_keras.data.pipeline import training_sample
from ssd_keras.data.records import Sample
from ssd_keras.evaluation.voc import voc_average_precision

Row = tuple[str, str, str]

SAMPLE_VALUES = (
    *(f"{what} of {color}" for what in ("mean", "deviation") for color in ("blue", "green", "red")),
    "share of fill",
    "number of objects",
)
BOX_VALUES = ("center y", "center x", "height", "width", "area", "aspect ratio")


def make_database(
    voc: pathlib.Path, split: str, convert: pathlib.Path, labels, folder: pathlib.Path
):
    """Makes the original's LMDB of a VOC folder, in the order of its list, and the label map."""
    names = (voc / "ImageSets/Main" / f"{split}.txt").read_text().split()
    lines = [f"JPEGImages/{name}.jpg Annotations/{name}.xml" for name in names]
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    items = [("none_of_the_above", 0), *((label, i) for i, label in enumerate(labels, start=1))]
    text = "".join(f'item {{ name: "{n}" label: {i} display_name: "{n}" }}\n' for n, i in items)
    label_map, lmdb = folder / "labels.prototxt", folder / "lmdb"
    label_map.write_text(text)
    options = {"anno_type": "detection", "label_type": "xml", "label_map_file": label_map}
    options |= {"encode_type": "jpg", "encoded": "true", "backend": "lmdb", "check_label": "true"}
    flags = [f"--{name}={value}" for name, value in options.items()]
    subprocess.run(
        [str(convert), *flags, f"{voc}/", str(folder / "list.txt"), str(lmdb)],
        check=True,
        capture_output=True,
    )
    return lmdb, label_map


def original_samples(original: Original, lmdb, label_map, size: int, count: int, seed: int):
    """Yields for each sample the SAMPLE_VALUES except the last, and boxes [G, 4] `yxyx`."""
    out = original.folder / "stats.txt"
    path = original.net("data", data(size, str(lmdb), str(label_map)))
    original.call("stats", path, out, count, seed)
    for line in out.read_text().splitlines():
        values = np.array(line.split(), float)
        rows = values[7:].reshape(-1, 8)
        yield values[:7], rows[rows[:, 0] >= 0][:, [4, 3, 6, 5]]


def our_samples(records, config: SSDConfig, count: int, seed: int):
    """Yields the same as `original_samples` for the package's augmentation."""

    def describe(serialized, position):
        sample = training_sample(serialized, position, config, seed, SSD_OPS)
        image = sample["image"][..., ::-1] - tf.constant([104.0, 117.0, 123.0])
        mean, variance = tf.nn.moments(tf.cast(image, tf.float64), axes=[0, 1])
        fill = tf.reduce_mean(
            tf.cast(tf.reduce_all(tf.abs(image) <= 2, axis=-1), tf.float64), keepdims=True
        )[0]
        return tf.concat([mean, tf.sqrt(variance), fill], 0), sample["boxes"]

    dataset = endless_records([records], [read_card(records)], seed, 4096, 0)
    dataset = dataset.take(count).map(describe, num_parallel_calls=tf.data.AUTOTUNE)
    yield from dataset.as_numpy_iterator()


def distance_and_p(values, owners, side, permutations: int = 400, seed: int = 0):
    """Two-sample Kolmogorov-Smirnov test in which the values of one sample stay together.

    Args:
        values: [N], one number for each box or for each sample.
        owners: [N], index of the sample that each value belongs to.
        side: bool for each sample: True for the first of the two sets.
        permutations: Number of permutations of the samples.
        seed: Seed of the permutations.

    Returns:
        The distance of the two distributions, and the share of permutations with a larger one.
    """
    order = np.argsort(values, kind="stable")
    values, owners = values[order], owners[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)

    def distance(side):
        mine = side[owners]
        first, second = np.cumsum(mine)[ends], np.cumsum(~mine)[ends]
        return np.abs(first / first[-1] - second / second[-1]).max()

    rng = np.random.default_rng(seed)
    observed = distance(side)
    larger = sum(distance(rng.permutation(side)) >= observed for _ in range(permutations))
    return observed, (1 + larger) / (1 + permutations)


def samples_rows(name: str, first, second) -> list[Row]:
    """Makes one row for each of SAMPLE_VALUES and BOX_VALUES."""
    samples = [*first, *second]
    side = np.arange(len(samples)) < len(first)
    whole = np.array([np.append(v, len(b)) for v, b in samples])
    boxes = np.concatenate([b for _, b in samples])
    owners = np.repeat(np.arange(len(samples)), [len(b) for _, b in samples])
    size = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, 2:] + boxes[:, :2]) / 2
    of_box = np.column_stack([center, size, size.prod(axis=1), size[:, 1] / size[:, 0]])
    tests = [(n, v, np.arange(len(samples))) for n, v in zip(SAMPLE_VALUES, whole.T, strict=True)]
    tests += [(n, v, owners) for n, v in zip(BOX_VALUES, of_box.T, strict=True)]
    rows = []
    for value, numbers, of in tests:
        apart, p = distance_and_p(numbers, of, side)
        mine = side[of]
        means = f"means {numbers[mine].mean():.4f} and {numbers[~mine].mean():.4f}"
        rows.append(
            (f"{name}, {value}", f"{len(numbers)} values", f"{means}, KS {apart:.4f}, p {p:.3f}")
        )
    return rows


def compare_draws(original: Original, voc, split, convert, records, count: int, sizes) -> list[Row]:
    """Compares distributions of augmented samples: both programs, and two seeds of the package."""
    labels = read_card(records).labels
    lmdb, label_map = make_database(voc, split, convert, labels, original.folder)
    rows = []
    for config in (SSD300_VOC, SSD512_VOC):
        if config.image_size not in sizes:
            continue
        size = config.image_size
        theirs = list(original_samples(original, lmdb, label_map, size, count, size))
        ours = list(our_samples(records, config, count, size))
        rows += samples_rows(f"SSD{size} samples", theirs, ours)
        if size == 300:
            other = list(our_samples(records, config, count, 2))
            rows += samples_rows("SSD300, two seeds of the package", ours, other)
    return rows


def original_evaluation(original: Original, truth, detections, num_classes: int) -> np.ndarray:
    """Runs DetectionEvaluate on each image, then ComputeAP.

    Args:
        original: The driver.
        truth: One `Sample` for each image.
        detections: For each image a dictionary of boxes, scores and classes.
        num_classes: C.

    Returns:
        AP [C, 3], in the versions 11point, MaxIntegral and Integral.
    """
    original.clear()
    sizes = original.folder / "sizes.txt"
    sizes.write_text("".join(f"{i} {t.height} {t.width}\n" for i, t in enumerate(truth)))
    layer = EVALUATION % {"outputs": num_classes + 1, "sizes": sizes}
    path = original.net("evaluate", inputs(detection_out=(1, 1, 1, 7), label=(1, 1, 1, 8)) + layer)
    for k, (t, found) in enumerate(zip(truth, detections, strict=True)):
        rows = np.zeros((max(1, len(found["scores"])), 7), np.float32)
        rows[:, 1] = -1  # the original's output for an image without detections
        if len(found["scores"]):
            rows[:, 1], rows[:, 2] = found["classes"], found["scores"]
            rows[:, 3:] = np.asarray(found["boxes"])[:, [1, 0, 3, 2]]
        original.write("detection_out", rows[None, None], k)
        original.write("label", label_blob([caffe_label(t.boxes, t.labels, 0, t.difficult)]), k)
    original.call("net", path, original.folder, len(truth), "TEST", "-", "evaluation")
    results = [original.read("evaluation", k)[0, 0] for k in range(len(truth))]
    text = ""
    for label in range(1, num_classes + 1):
        mine = [r[r[:, 1] == label] for r in results]
        positives = sum(int(r[r[:, 0] == -1, 2].sum()) for r in mine)
        rows = np.concatenate([r[(r[:, 0] != -1) & (r[:, 3] + r[:, 4] > 0)] for r in mine])
        text += f"{positives} {len(rows)}\n"
        text += "".join(f"{s:.9g} {tp:.0f} {fp:.0f}\n" for s, tp, fp in rows[:, 2:])
    (original.folder / "ap.txt").write_text(text)
    printed = original.call("ap", original.folder / "ap.txt")
    return np.array([line.split() for line in printed.splitlines()], float)


def read_coco(annotations: pathlib.Path, results: pathlib.Path):
    """Reads COCO's annotations and results; crowd regions become difficult objects."""
    content, found = json.loads(annotations.read_text()), json.loads(results.read_text())
    ids = {c["id"]: i for i, c in enumerate(content["categories"], start=1)}
    truth, detections = [], []
    for image in content["images"]:
        scale = np.array([image["height"], image["width"]] * 2, float)

        def boxes(items, scale=scale):
            xywh = np.array([item["bbox"] for item in items], float).reshape(-1, 4)
            yxyx = np.column_stack(
                [xywh[:, 1], xywh[:, 0], xywh[:, 1] + xywh[:, 3], xywh[:, 0] + xywh[:, 2]]
            )
            return (yxyx / scale).astype(np.float32)

        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        mine = [a for a in mine if min(a["bbox"][2:]) > 0]
        truth.append(
            Sample(
                image_id=str(image["id"]),
                image=b"",
                height=image["height"],
                width=image["width"],
                boxes=boxes(mine),
                labels=np.array([ids[a["category_id"]] for a in mine], int),
                difficult=np.array([bool(a.get("iscrowd")) for a in mine], bool),
            )
        )
        mine = [d for d in found if d["image_id"] == image["id"]]
        scores = np.array([d["score"] for d in mine], np.float32)
        classes = np.array([ids[d["category_id"]] for d in mine], int)
        detections.append({"boxes": boxes(mine), "scores": scores, "classes": classes})
    return truth, detections, [c["name"] for c in content["categories"]]


def evaluation_row(name: str, theirs: np.ndarray, truth, detections, labels) -> Row:
    """Makes a row with the largest differences of the AP of a class."""
    ours = voc_average_precision(detections, truth, labels)
    defined = [i for i, c in enumerate(ours.classes) if c.num_objects]
    eleven = np.array([ours.classes[i].ap_11_point for i in defined]) - theirs[defined, 0]
    area = np.array([ours.classes[i].ap_area for i in defined]) - theirs[defined, 1]
    # The original compares float32 recalls with the levels.
    recalls = [np.float32(ours.classes[i].recall).astype(float) for i in defined]
    like_theirs = [
        np.mean([ours.classes[i].precision[r >= j / 10].max(initial=0) for j in range(11)])
        for i, r in zip(defined, recalls, strict=True)
    ]
    found = (
        f"11-point {np.abs(eleven).max():.1e} ({(np.abs(eleven) > 1e-4).sum()} classes differ), "
    )
    found += f"with recalls in float32 {np.abs(like_theirs - theirs[defined, 0]).max():.1e}, "
    found += f"integral {np.abs(area).max():.1e}; mean 11-point {theirs[defined, 0].mean():.4f}, "
    found += f"the package's {ours.mean_ap_11_point:.4f}, integral {theirs[defined, 1].mean():.4f}"
    return f"average precision, {name}", f"{len(truth)} pictures, {len(defined)} classes", found


def compare_evaluation(original: Original, annotations, results) -> list[Row]:
    """Compares the AP of real detections."""
    truth, detections, labels = read_coco(annotations, results)
    theirs = original_evaluation(original, truth, detections, len(labels))
    return [evaluation_row("real detections", theirs, truth, detections, labels)]
