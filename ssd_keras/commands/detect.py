"""Detects objects in image files, videos, streams and cameras.

    ssd-keras detect --model=runs/voc/best.keras --out=found photos/ 'more/**/*.jpg' film.mp4

Give image and video files, folders, glob patterns, URLs of streams (rtsp://, http://) or camera:0.
The input - reads an image, or a list of inputs, from stdin. Folders are searched for images only.
The command writes an annotated copy of each image, and detections.jsonl with one line per image.
For a video it writes an annotated video and a .jsonl file with the time of each frame. Boxes in the
JSON are (ymin, xmin, ymax, xmax): `box` as fractions of the image, `box_pixels` in pixels. Boxes
refer to the image as stored; its EXIF orientation is ignored. Files that cannot be decoded are
reported on stderr and skipped; the exit code is then 2.

--tiles finds small objects in large images: the command detects on the whole image and on its
tiles. --formats=coco,voc,yolo writes annotations for labeling tools. --shard=0/16 processes one of
16 parts of the images, for jobs that run in parallel. --runner=DirectRunner runs all parts with
Apache Beam.
"""

import functools
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from ssd_keras.commands.beam_flags import define_beam_flags, run_all_shards, runs_over_beam
from ssd_keras.images import MAX_PIXELS
from ssd_keras.inference.detector import Detector, load_detector
from ssd_keras.inference.files import check_out, detect_files
from ssd_keras.inference.inputs import Inputs, find_inputs
from ssd_keras.inference.outputs import FORMATS
from ssd_keras.inference.shards import detect_shard, shard_detector, split_shards
from ssd_keras.inference.tiles import parse_tiles, tiled_detector
from ssd_keras.shards import parse_shard

WORDS = "INPUTS ..."

_MODEL = flags.DEFINE_string(
    "model", None, "A .keras file, a SavedModel folder or a .tflite file.", required=True
)
_OUT = flags.DEFINE_string("out", None, "Folder to write to.", required=True)
_FORMATS = flags.DEFINE_list(
    "formats",
    ["pictures", "jsonl"],
    f"Formats to write, of: {', '.join(FORMATS)}. Videos use pictures and jsonl.",
)
_SCORE = flags.DEFINE_float(
    "score_threshold", 0.6, "Minimum score of a detection in all formats except jsonl."
)
_JSON = flags.DEFINE_float("json_threshold", 0.01, "Minimum score of a detection in jsonl.")
_TILES = flags.DEFINE_string(
    "tiles", None, "Tiles of large images: rows x columns, such as 2x2, or a side in pixels."
)
_OVERLAP = flags.DEFINE_float(
    "tile_overlap", 0.2, "Overlap of neighboring tiles, as a fraction of a tile."
)
_EVERY = flags.DEFINE_integer("every", 1, "Videos: detect on every n-th frame.", lower_bound=1)
_MAX_FRAMES = flags.DEFINE_integer(
    "max_frames", None, "Videos: maximum number of frames to detect on.", lower_bound=1
)
_SHARD = flags.DEFINE_string(
    "shard", None, "k/n, such as 0/16: process only shard k of n, and write JSON lines only."
)
_SHARDS = flags.DEFINE_integer(
    "shards", 16, "Number of shards for --runner; give the same number again.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images per batch.")
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    MAX_PIXELS,
    "Limit for the height times the width of an image; larger images are skipped.",
    lower_bound=1,
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Write to a folder that is not empty, and replace files of the same names."
)
define_beam_flags()


def interrupted() -> str:
    """Returns the message for Ctrl-C."""
    return (
        f"the images drawn so far are in {_OUT.value}; the JSON lines of images were not written, "
        "those of videos are complete"
    )


def main(words: list[str]) -> int:
    """Detects objects and prints a summary."""
    inputs = find_inputs(words)
    _check_flags(inputs)
    shard = None if _SHARD.value is None else parse_shard(_SHARD.value)
    tiles = None if _TILES.value is None else parse_tiles(_TILES.value, _OVERLAP.value)
    if inputs.videos:
        from ssd_keras.inference.video import open_video

        for video in inputs.videos:
            open_video(video).close()  # raises its error before anything is written
    out = Path(_OUT.value).expanduser()
    with tempfile.TemporaryDirectory() as folder:
        paths = [*inputs.images, *_stdin_file(inputs.stdin_image, Path(folder))]
        if shard is None and not runs_over_beam():
            check_out(out, [*paths, *map(Path, inputs.videos)], _OVERWRITE.value)
        if inputs.videos and (shard is not None or runs_over_beam()):
            raise ValueError("--shard and --runner take images only: process each video in a job")
        sizes: dict[str, Any] = {"threshold": _JSON.value, "batch_size": _BATCH_SIZE.value}
        if runs_over_beam():
            return _detect_over_beam(paths, out, {**sizes, "tiles": tiles})
        detector = load_detector(_MODEL.value, max_pixels=_MAX_PIXELS.value)
        if tiles is not None:
            detector = tiled_detector(detector, tiles, _BATCH_SIZE.value)
        if shard is not None:
            index, count = shard
            names = split_shards(paths, count)[index]
            print(detect_shard(detector, names, out, index, count, **sizes))
            return 0
        return _detect_all(detector, paths, inputs.videos, out)


def _check_flags(inputs: Inputs) -> None:
    """Raises ValueError for a flag that would have no effect."""
    shards = "with --shard and --runner, which write JSON lines only"
    apart = _SHARD.value is not None or runs_over_beam()
    rules = (
        (_FORMATS, apart, shards),
        (_SCORE, apart, shards),
        (_OVERWRITE, apart, shards),
        (_SHARDS, not runs_over_beam(), "without --runner"),
        (_OVERLAP, _TILES.value is None, "without --tiles"),
        (_EVERY, not inputs.videos, "without a video"),
        (_MAX_FRAMES, not inputs.videos, "without a video"),
    )
    for flag, unused, reason in rules:
        if flag.present and unused:
            raise ValueError(f"--{flag.name} has no effect {reason}: remove it")
    if inputs.videos and not inputs.images and not {"pictures", "jsonl"} & {*_FORMATS.value}:
        raise ValueError("--formats must have pictures or jsonl for a video")


def _detect_over_beam(paths: list[Path], out: Path, options: dict[str, Any]) -> int:
    """Detects on all shards with a runner of Apache Beam and returns the exit code."""
    if _SHARD.value:
        raise ValueError("--runner processes all shards: remove --shard")
    start = functools.partial(
        shard_detector,
        Path(_MODEL.value).absolute(),
        out.absolute(),
        _SHARDS.value,
        max_pixels=_MAX_PIXELS.value,
        **options,
    )
    absolute = [path.absolute() for path in paths]
    print(run_all_shards(start, list(enumerate(split_shards(absolute, _SHARDS.value)))))
    return 0


def _detect_all(detector: Detector, paths: list[Path], videos: list[str], out: Path) -> int:
    """Detects on all inputs and returns the exit code."""
    options: dict[str, Any] = {
        "score_threshold": _SCORE.value,
        "json_threshold": _JSON.value,
        "batch_size": _BATCH_SIZE.value,
        "formats": tuple(_FORMATS.value),
    }
    for video in videos:
        from ssd_keras.inference.video import detect_video

        found = detect_video(
            detector, video, out, every=_EVERY.value, max_frames=_MAX_FRAMES.value, **options
        )
        print(f"{video}: {found.num_frames} frames, {found.num_detections} detections")
    if not paths:
        return 0
    overwrite = _OVERWRITE.value or bool(videos)  # `main` has already checked the folder
    summary = detect_files(detector, paths, out, overwrite=overwrite, **options)
    print(
        f"{summary.num_images} images, {summary.num_detections} detections: {out}; "
        f"{len(summary.unreadable)} files skipped"
    )
    return 2 if summary.unreadable else 0


def _stdin_file(image: bytes | None, folder: Path) -> list[Path]:
    """Writes the image from stdin to a file, so that it is read like the other images."""
    if image is None:
        return []
    path = folder / ("stdin.jpg" if image.startswith(b"\xff\xd8\xff") else "stdin.png")
    path.write_bytes(image)
    return [path]
