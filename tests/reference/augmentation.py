"""A slow NumPy version of the original's augmentation, which creates the image after each step.

It follows Caffe's branch ssd (im_transforms.cpp, sampler.cpp, data_transformer.cpp) and OpenCV's
cvtColor and resize. The random parameters are arguments. It does not use `ssd_keras`.
"""

import math

import numpy as np

# --- photometric distortion ---


def to_uint8(x):
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def rgb_to_hsv8(image):
    """OpenCV's 8-bit RGB to HSV in integers, with its 12-bit fixed-point tables."""
    r, g, b = np.moveaxis(image.astype(int), -1, 0)
    v = np.max(image, axis=-1).astype(int)
    diff = v - np.min(image, axis=-1)
    per_value = np.array([0] + [round((255 << 12) / i) for i in range(1, 256)])
    per_diff = np.array([0] + [round((180 << 12) / (6 * i)) for i in range(1, 256)])
    h = np.select([v == r, v == g], [g - b, b - r + 2 * diff], r - g + 4 * diff)
    h = (h * per_diff[diff] + (1 << 11)) >> 12
    s = (diff * per_value[v] + (1 << 11)) >> 12
    return np.stack([np.where(h < 0, h + 180, h), s, v], axis=-1).astype(np.uint8)


def hsv8_to_rgb(hsv):
    """OpenCV's 8-bit HSV to RGB by sectors; H from 180 to 255 wraps."""
    h, s, v = np.moveaxis(hsv / np.array([30.0, 255.0, 255.0]), -1, 0)
    sector = np.floor(h).astype(int)
    f = h - sector
    p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
    sectors = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)]
    channels = [np.choose(sector % 6, [rgb[c] for rgb in sectors]) for c in range(3)]
    return to_uint8(np.stack(channels, axis=-1) * 255)


def distort(image, contrast_first, applied, brightness, contrast, saturation, hue):
    """ApplyDistort on an image, uint8 [H, W, 3]."""

    def change_brightness(x):
        return to_uint8(x + np.float32(brightness))

    def change_contrast(x):
        return to_uint8(x * np.float32(contrast))

    def change_saturation(x):
        hsv = rgb_to_hsv8(x)
        hsv[..., 1] = to_uint8(hsv[..., 1] * np.float32(saturation))
        return hsv8_to_rgb(hsv)

    def change_hue(x):
        hsv = rgb_to_hsv8(x)
        hsv[..., 0] = to_uint8(hsv[..., 0] + np.float32(hue))
        return hsv8_to_rgb(hsv)

    first = [(0, change_brightness), (1, change_contrast), (2, change_saturation), (3, change_hue)]
    last = [(0, change_brightness), (2, change_saturation), (3, change_hue), (1, change_contrast)]
    for which, change in first if contrast_first else last:
        if applied[which]:
            image = change(image)
    return image


# --- geometry ---


def expand(image, canvas, offset, mean):
    """ExpandImage: puts an image, uint8 [H, W, 3], on a canvas of the mean color."""
    big = np.empty((*canvas, 3), np.uint8)
    big[:] = mean
    big[offset[0] : offset[0] + image.shape[0], offset[1] : offset[1] + image.shape[1]] = image
    return big


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    shared = height * width
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def run_samplers(trials, boxes):
    """GenerateBatchSamples: (sampler, crop) of every sampler that succeeded, in order.

    Sampler 0 is the whole image. `trials` [6, 50, 4] are the boxes that the samplers 1 to 6 draw.
    """
    successes = [(0, (0.0, 0.0, 1.0, 1.0))]
    constraints = [(0.1, None), (0.3, None), (0.5, None), (0.7, None), (0.9, None), (None, 1.0)]
    for sampler, (least, most) in enumerate(constraints):
        for trial in trials[sampler]:
            overlaps = [iou(trial, box) for box in boxes]
            if any((least is None or o >= least) and (most is None or o <= most) for o in overlaps):
                successes.append((sampler + 1, tuple(trial)))
                break
    return successes


def emit(boxes, crop):
    """TransformAnnotation with EmitConstraint CENTER: object index -> box in the crop."""
    ymin, xmin, ymax, xmax = crop
    emitted = {}
    for k, (top, left, bottom, right) in enumerate(boxes):
        cy, cx = (top + bottom) / 2, (left + right) / 2
        if ymin <= cy <= ymax and xmin <= cx <= xmax:
            moved = np.array([top - ymin, left - xmin, bottom - ymin, right - xmin])
            moved = np.clip(moved / ([ymax - ymin, xmax - xmin] * 2), 0, 1)
            if moved[2] > moved[0] and moved[3] > moved[1]:
                emitted[k] = moved
    return emitted


def random_trial(rng):
    """SampleBBox: draws scale and aspect ratio, then the position."""
    scale, aspect = rng.uniform(0.3, 1), rng.uniform(0.5, 2)
    aspect = min(max(aspect, scale**2), 1 / scale**2)
    width, height = scale * math.sqrt(aspect), scale / math.sqrt(aspect)
    ymin, xmin = rng.uniform(0, max(1 - height, 0)), rng.uniform(0, max(1 - width, 0))
    return ymin, xmin, ymin + height, xmin + width


def random_crop(rng, boxes):
    """Draws a crop: its sampler, its largest IoU with an object, and the number of kept objects."""
    trials = [[random_trial(rng) for _ in range(50)] for _ in range(6)]
    successes = run_samplers(trials, boxes)
    sampler, crop = successes[rng.integers(len(successes))]
    return sampler, max(iou(crop, box) for box in boxes), len(emit(boxes, crop))


# --- warp ---


def resize(image, size, interpolation):
    """cv::resize of uint8 [H, W, 3] to [size, size, 3]; OpenCV's 11-bit weights are floats here."""
    sides = image.shape[:2]
    area = "area" if min(sides) >= size else "area of two"
    kind = area if interpolation == "area" else interpolation
    rows, columns = (
        np.array([_weights(i, size, side, kind) for i in range(size)]) for side in sides
    )
    return to_uint8(np.einsum("ih,hwc,jw->ijc", rows, image.astype(float), columns, optimize=True))


def _weights(cell, size, side, kind):
    """Weights of the `side` input pixels of an axis in output pixel `cell` of `size`."""
    weights = np.zeros(side)
    inverse = size / side
    scale = 1 / inverse  # rounded twice, as in OpenCV

    def add(pixel, weight):
        weights[min(max(pixel, 0), side - 1)] += weight

    corner = math.floor(cell * scale)
    center = (cell + 0.5) * scale - 0.5
    base = math.floor(center)
    fraction = center - base
    if kind == "nearest":
        add(corner, 1)
    elif kind == "linear":
        add(base, 1 - fraction)
        add(base + 1, fraction)
    elif kind == "cubic":
        a = -0.75
        for k in range(-1, 3):
            x = abs(k - fraction)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            add(base + k, near if x <= 1 else far)
    elif kind == "lanczos4":
        taps = [np.sinc(k - fraction) * np.sinc((k - fraction) / 4) for k in range(-3, 5)]
        for k, tap in zip(range(-3, 5), taps, strict=True):
            add(base + k, tap / sum(taps))
    elif kind == "area":
        for pixel in range(side):
            overlap = min(pixel + 1, (cell + 1) * scale) - max(pixel, cell * scale)
            add(pixel, max(overlap, 0) / scale)
    else:
        beyond = max(cell + 1 - (corner + 1) * inverse, 0)
        beyond -= math.floor(beyond)
        add(corner, 1 - beyond)
        add(corner + 1, beyond)
    return weights


def make_picture(image, params, size, mean, names):
    """Augments an image with the "params" of `augment`: uint8 [size, size, 3]."""
    d = params.get("distortion")
    if d is not None:
        image = distort(image, *d)
    image = expand(image, params["canvas"], params["offset"], mean)
    top, left, height, width = params["window"]
    image = image[top : top + height, left : left + width]
    image = resize(image, size, names[params["interpolation"]])
    return image[:, ::-1] if params["mirror"] else image
