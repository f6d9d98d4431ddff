"""Small image files that claim very large images, and a child process that measures their cost."""

import io
import resource
import struct
import sys
import zlib

from PIL import Image

SIDE = 23_000


def hostile_images():
    """Name -> content of a small file that claims an image of gigabytes."""
    gif = _saved(Image.new("P", (4000, 4000)), "GIF")
    frame = gif[gif.index(b"\x2c") : -1]
    jpeg = bytearray(_saved(Image.new("RGB", (8, 8)), "JPEG"))
    progressive = bytearray(_saved(Image.new("RGB", (8, 8)), "JPEG", progressive=True))
    for content in (jpeg, progressive):
        marker = max(content.find(b"\xff\xc0\x00"), content.find(b"\xff\xc2\x00"))
        content[marker + 5 : marker + 9] = struct.pack(">HH", SIDE, SIDE)
    bmp = bytearray(_saved(Image.new("RGB", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", SIDE, -SIDE)
    webp = b"\x2f" + struct.pack("<I", (13_300 - 1) | (13_300 - 1) << 14) + bytes(10)
    webp = b"WEBPVP8L" + struct.pack("<I", len(webp)) + webp + bytes(len(webp) % 2)
    return {
        "JPEG": bytes(jpeg),
        "progressive JPEG": bytes(progressive),
        "PNG": _png(SIDE, SIDE),
        "BMP": bytes(bmp),
        "GIF of 500 frames": gif[: gif.index(b"\x2c")] + 500 * frame + b"\x3b",
        "GIF of a large canvas": gif[:6] + struct.pack("<HH", SIDE, SIDE) + gif[10:],
        "WebP": b"RIFF" + struct.pack("<I", len(webp)) + webp,
        "TIFF": _tiff(SIDE, SIDE),
    }


def peak_memory():
    """Returns the peak memory of this process, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _saved(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _png(width, height):
    """Returns a complete black PNG with one bit per pixel."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _tiff(width, height):
    """Returns a TIFF with one bit per pixel and one strip of deflated zeros."""
    strip = zlib.compress(bytes((width + 7) // 8 * height))
    tags = {256: width, 257: height, 258: 1, 259: 8, 262: 1, 273: 0, 277: 1, 278: height, 279: 0}
    tags |= {273: 8 + 2 + 12 * len(tags) + 4, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + strip


def main(model_path):
    """Prints one line per case: name, size, and megabytes, seconds and result of each reader."""
    import json
    import time

    import tensorflow as tf

    from ssd_keras.data.card import Notes
    from ssd_keras.data.image_files import load_image
    from ssd_keras.images import decode_image

    loaded = tf.saved_model.load(model_path).signatures["encoded"]

    def prepare(content):
        notes = Notes()
        return load_image(content, "x", notes) is None and "pixels" in next(iter(notes.skipped))

    def train(content):
        try:
            decode_image(tf.constant(content))
        except tf.errors.InvalidArgumentError:
            return True
        return False

    def serve(content):
        return not bool(loaded(image_bytes=tf.constant([content]))["image_decoded"][0])

    readers = (prepare, train, serve)
    harmless = _saved(Image.new("RGB", (64, 64)), "GIF"), _saved(Image.new("RGB", (9, 9)), "WEBP")
    cases = hostile_images()
    for content in harmless:
        for reader in readers:
            reader(content)
    for name, content in cases.items():
        for reader in readers:
            before, start = peak_memory(), time.perf_counter()
            refused = reader(content)
            cost = round(peak_memory() - before), round(time.perf_counter() - start, 2)
            print(json.dumps([name, reader.__name__, len(content), *cost, refused]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
