"""Detects on one of n shards of the images, so that n jobs can run in parallel.

The shard of a file depends only on a hash of its name and on n, so the jobs need no communication.
A job writes its shard to a temporary file, and renames the file when it is complete. A shard that
exists is skipped. A job that was killed can be run again with the same inputs and the same n.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd_keras.files import atomic
from ssd_keras.images import MAX_PIXELS
from ssd_keras.inference.detector import Detector, load_detector
from ssd_keras.inference.files import above, common_folder, detections_of
from ssd_keras.inference.outputs import json_detections
from ssd_keras.inference.tiles import Tiles, tiled_detector
from ssd_keras.progress import progress_bar
from ssd_keras.shards import shard_of


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSummary:
    """Result of `detect_shard`.

    Attributes:
        path: The JSON lines file of the shard.
        existed: Whether the shard already existed. The call then did nothing.
        num_images: Number of images that were processed.
        num_detections: Number of detections.
        num_dead: Number of files that could not be read or decoded.
    """

    path: Path
    existed: bool
    num_images: int = 0
    num_detections: int = 0
    num_dead: int = 0

    @property
    def dead_path(self) -> Path:
        """The JSON lines of the files that could not be read or decoded."""
        return self.path.with_name(self.path.name.replace("detections", "dead", 1))

    def __str__(self) -> str:
        if self.existed:
            return f"{self.path} exists: skipped"
        return (
            f"{self.path}: {self.num_images} images, {self.num_detections} detections, "
            f"{self.num_dead} unreadable files"
        )


def shard_detector(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    count: int,
    *,
    threshold: float = 0.01,
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
    tiles: Tiles | None = None,
) -> Callable[[tuple[int, Mapping[Path, str]]], Iterator[tuple[str, Any]]]:
    """Loads a detector, and returns a function that detects on one shard after another.

    The function takes the number of a shard and its files, from `split_shards`. It yields
    ("done", text) once and ("dead", letter) for each dead letter; see `ssd_keras.beam_shards`.

    Args:
        model: See `load_detector`.
        out: See `detect_shard`.
        count: See `detect_shard`.
        threshold: See `detect_shard`.
        batch_size: See `detect_shard`.
        max_pixels: See `load_detector`.
        tiles: Tiles of large images; see `tiled_detector`.
    """
    detector = load_detector(model, max_pixels=max_pixels)
    if tiles is not None:
        detector = tiled_detector(detector, tiles, batch_size)

    def process(shard: tuple[int, Mapping[Path, str]]) -> Iterator[tuple[str, Any]]:
        index, names = shard
        summary = detect_shard(
            detector, names, out, index, count, threshold=threshold, batch_size=batch_size
        )
        for line in summary.dead_path.read_text("utf-8").splitlines():
            yield "dead", json.loads(line)
        yield "done", str(summary)

    return process


def split_shards(paths: Sequence[Path], count: int) -> list[dict[Path, str]]:
    """Divides images into shards.

    Args:
        paths: The images.
        count: n, the number of shards.

    Returns:
        For each shard its files, with their names relative to the folder that all images share, in
        the order of the names.
    """
    root = common_folder(paths)
    shards: list[dict[Path, str]] = [{} for _ in range(count)]
    named = sorted((Path(os.path.relpath(p.resolve(), root)).as_posix(), p) for p in paths)
    for name, path in named:
        shards[shard_of(name, count)][path] = name
    return shards


def detect_shard(
    detector: Detector,
    names: Mapping[Path, str],
    out: str | os.PathLike[str],
    index: int,
    count: int,
    *,
    threshold: float = 0.01,
    batch_size: int = 8,
) -> ShardSummary:
    """Detects on the images of one shard.

    `detections-<k>-of-<n>.jsonl` has a line per image with `file`, `width`, `height` and
    `detections`, as in `detect_files`. `dead-<k>-of-<n>.jsonl` has a line with `file` and `reason`
    for each file that cannot be read or decoded. It is complete before
    `detections-<k>-of-<n>.jsonl` exists. Running a shard again gives the same bytes. File names are
    relative to the common folder of all images, so the shards do not change if it is moved.

    Args:
        detector: The detector to run.
        names: The images of the shard with their names, from `split_shards`.
        out: Folder to write to; the same in every job.
        index: k, the shard to process, from 0.
        count: n, the number of shards; the same in every job.
        threshold: Minimum score of a detection.
        batch_size: Images per batch.

    Returns:
        The file, and the numbers of images, detections and unreadable files.
    """
    suffix = f"{index:05d}-of-{count:05d}.jsonl"
    path = Path(out, f"detections-{suffix}")
    if path.exists():
        return ShardSummary(path, existed=True)
    bar = progress_bar(len(names))
    num_detections = num_dead = 0
    with (
        atomic(path) as temporary,
        atomic(path.with_name(f"dead-{suffix}")) as dead_path,
        temporary.open("w", encoding="utf-8") as lines,
        dead_path.open("w", encoding="utf-8") as dead,
    ):
        for file, found in detections_of(detector, list(names), batch_size):
            bar.add(1)
            line: dict[str, object] = {"file": names[file.path]}
            if file.pixels is None or found is None:
                num_dead += 1
                dead.write(json.dumps(line | {"reason": file.problem}) + "\n")
                continue
            height, width = file.pixels.shape[:2]
            kept = above(found, threshold)
            num_detections += len(kept["scores"])
            line |= {"width": width, "height": height}
            line["detections"] = json_detections(kept, height, width, detector.labels)
            lines.write(json.dumps(line) + "\n")
    bar.finish()
    for leftover in path.parent.glob(f".*-{suffix}"):  # temporary files of killed jobs
        leftover.unlink(missing_ok=True)
    return ShardSummary(path, False, len(names) - num_dead, num_detections, num_dead)
