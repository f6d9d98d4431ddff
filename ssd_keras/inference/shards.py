"""Detects on one of n parts of many images, so that jobs can run side by side and again.

The shard of a file is a hash of its name, so all jobs agree without talking to each other. A shard
is written to a temporary file and renamed when it is complete; a shard that exists is skipped. A
job that was killed is run again with the same inputs and the same n.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ssd_keras.files import atomic
from ssd_keras.inference.detector import Detector
from ssd_keras.inference.files import above, common_folder, detections_of
from ssd_keras.inference.outputs import json_detections
from ssd_keras.progress import progress_bar
from ssd_keras.shards import shard_of


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSummary:
    """Result of `detect_shard`.

    Attributes:
        path: The JSON lines of the shard.
        existed: Whether the shard was complete before, so that nothing was done.
        num_images: Number of images that were detected on.
        num_detections: Number of detections.
        num_dead: Number of files that could not be read or decoded.
    """

    path: Path
    existed: bool
    num_images: int = 0
    num_detections: int = 0
    num_dead: int = 0

    def __str__(self) -> str:
        if self.existed:
            return f"{self.path} exists: skipped"
        return (
            f"{self.path}: {self.num_images} images, {self.num_detections} detections, "
            f"{self.num_dead} dead letters"
        )


def detect_shard(
    detector: Detector,
    paths: Sequence[Path],
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
    for each file that cannot be read or decoded; it is complete before the first file appears.
    Running a shard again gives the same bytes. Names are relative to the folder that all images
    share, so the shards do not change when that folder is moved.

    Args:
        detector: The detector to run.
        paths: The images of all shards; the same in every job.
        out: Folder to write to; all jobs share it.
        index: k, the shard to process, from 0.
        count: n, the number of shards; the same in every job.
        threshold: Minimum score of a detection.
        batch_size: Images per batch.
    """
    suffix = f"{index:05d}-of-{count:05d}.jsonl"
    path = Path(out, f"detections-{suffix}")
    if path.exists():
        return ShardSummary(path, existed=True)
    root = common_folder(paths)
    names = {p: Path(os.path.relpath(p.resolve(), root)).as_posix() for p in paths}
    mine = sorted((p for p in paths if shard_of(names[p], count) == index), key=names.__getitem__)
    bar = progress_bar(len(mine))
    num_detections = num_dead = 0
    with (
        atomic(path) as temporary,
        atomic(path.with_name(f"dead-{suffix}")) as dead_path,
        temporary.open("w", encoding="utf-8") as lines,
        dead_path.open("w", encoding="utf-8") as dead,
    ):
        for file, found in detections_of(detector, mine, batch_size):
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
    for leftover in path.parent.glob(f".*-{suffix}"):  # of killed jobs of this shard
        leftover.unlink(missing_ok=True)
    return ShardSummary(path, False, len(mine) - num_dead, num_detections, num_dead)
