"""Slow versions of the original's default boxes, matching and loss, as loops in Python."""

import math

import numpy as np


def default_boxes(config):
    """prior_box_layer.cpp: the default boxes in the order of feature maps, rows and columns."""
    out = []
    for m in config.feature_maps:
        low, high = m.min_size, m.max_size
        if config.integer_sizes:
            low, high = int(low), int(high)
        for row in range(m.size):
            for column in range(m.size):
                cy, cx = (row + 0.5) * m.step, (column + 0.5) * m.step
                out.append((cy, cx, low, low))
                out.append((cy, cx, math.sqrt(low * high), math.sqrt(low * high)))
                for ratio in m.aspect_ratios:
                    for r in (ratio, 1 / ratio):
                        out.append((cy, cx, low / math.sqrt(r), low * math.sqrt(r)))
    return np.array(out) / config.image_size


def iou(a, b):
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union if union > 0 else 0.0


def match(overlap, valid, threshold=0.5):
    """MatchBBox: the index of the ground truth of each default box, or -1.

    `overlap` [G, P] is the IoU, and `valid` [G] is False for padding.
    """
    count, boxes = overlap.shape
    matched = [-1] * boxes
    pool = [j for j in range(count) if valid[j]]
    while pool:
        best, best_box, best_truth = -1.0, -1, -1
        for i in range(boxes):
            if matched[i] != -1:
                continue
            for j in pool:
                if overlap[j, i] > 1e-6 and overlap[j, i] > best:
                    best, best_box, best_truth = overlap[j, i], i, j
        if best_box < 0:
            break
        matched[best_box] = best_truth
        pool.remove(best_truth)
    for i in range(boxes):
        if matched[i] != -1:
            continue
        best = -1.0
        for j in range(count):
            value = overlap[j, i]
            if valid[j] and value > 1e-6 and value >= threshold and value > best:
                best, matched[i] = value, j
    return matched


def multibox_loss(ground_truth, predictions, overlaps, boxes, variances, threshold=0.5, ratio=3):
    """Localization loss and confidence loss, summed over a batch, and its number of positives.

    `overlaps` [B, G, P] is an argument because rounding can decide a match: a small object inside
    two default boxes of equal size has the same IoU with both, except for rounding.
    """
    localization = confidence = 0.0
    positives = 0
    for truth, prediction, overlap in zip(ground_truth, predictions, overlaps, strict=True):
        valid = [t[4] > 0 and t[2] > t[0] and t[3] > t[1] for t in truth]
        matched = match(overlap, valid, threshold)
        losses = []
        for i, j in enumerate(matched):
            logits = prediction[i, 4:].astype(np.float64)
            label = int(truth[j][4]) if j >= 0 else 0
            loss = math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label]
            if j < 0:
                losses.append((loss, i))
                continue
            positives += 1
            confidence += loss
            y0, x0, y1, x1 = (float(v) for v in truth[j][:4])
            dcy, dcx, dh, dw = (float(v) for v in boxes[i])
            wanted = (
                ((y0 + y1) / 2 - dcy) / dh / variances[0],
                ((x0 + x1) / 2 - dcx) / dw / variances[1],
                math.log((y1 - y0) / dh) / variances[2],
                math.log((x1 - x0) / dw) / variances[3],
            )
            for got, want in zip(prediction[i, :4], wanted, strict=True):
                d = abs(float(got) - want)
                localization += 0.5 * d * d if d < 1 else d - 0.5
        image_positives = sum(j >= 0 for j in matched)
        losses.sort(key=lambda pair: (-pair[0], pair[1]))
        confidence += sum(loss for loss, _ in losses[: int(ratio * image_positives)])
    return localization, confidence, positives
