"""Detects on video files, streams and cameras with PyAV, frame by frame."""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ssd_keras.detections import Detections
from ssd_keras.drawing import draw_detections
from ssd_keras.extras import require
from ssd_keras.files import atomic
from ssd_keras.inference.ahead import WriteBehind, read_ahead
from ssd_keras.inference.detector import Detector
from ssd_keras.inference.files import above
from ssd_keras.inference.outputs import json_detections
from ssd_keras.progress import batched, progress_bar

require("av", "video", "a video")
import av  # noqa: E402
import av.error  # noqa: E402

# Unit of the frame times in annotated videos, in seconds; exact for all usual frame rates.
_TIME_BASE = Fraction(1, 90_000)


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a video.

    Attributes:
        number: Number of the frame in the video, from 0.
        seconds: Time of the frame in seconds from the start of the video.
        pixels: uint8 [H, W, 3], RGB.
    """

    number: int
    seconds: float
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class VideoSummary:
    """Result of `detect_video`.

    Attributes:
        num_frames: Number of frames that were processed.
        num_detections: Number of detections in the JSON lines.
    """

    num_frames: int
    num_detections: int


def open_video(source: str) -> Any:
    """Opens a video file, a stream or a camera.

    Args:
        source: A file name, the URL of a stream, or "camera:N" for /dev/videoN.

    Returns:
        The PyAV container, which the caller must close.

    Raises:
        ValueError: If the source cannot be opened, or has no video.
    """
    name, options = source, {}
    if source.startswith("camera:"):
        name, options = f"/dev/video{source.removeprefix('camera:')}", {"format": "v4l2"}
    try:
        container = av.open(name, **options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{source} cannot be opened as a video: {error}") from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"{source} has no video stream")
    return container


def frames_of(container: Any, every: int = 1, max_frames: int | None = None) -> Iterator[Frame]:
    """Decodes a video lazily and yields every n-th frame.

    Frames are rotated by the rotation tag that phones store in a video. Decoding ends without an
    error at the first frame that FFmpeg cannot decode.

    Args:
        container: From `open_video`.
        every: n, at least 1.
        max_frames: Maximum number of frames to yield, or None.

    Yields:
        The frames in order.
    """
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    start: float | None = None
    yielded = 0
    with contextlib.suppress(av.error.InvalidDataError, av.error.EOFError):
        for number, frame in enumerate(container.decode(stream)):
            seconds = frame.time if frame.time is not None else float(number)
            start = seconds if start is None else start
            if number % every:
                continue
            pixels = frame.to_ndarray(format="rgb24")
            turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
            pixels = np.ascontiguousarray(np.rot90(pixels, turns))
            yield Frame(number, seconds - start, pixels)
            yielded += 1
            if yielded == max_frames:
                return


def detect_video(
    detector: Detector,
    source: str,
    out: str | os.PathLike[str],
    *,
    score_threshold: float = 0.6,
    json_threshold: float = 0.01,
    batch_size: int = 8,
    every: int = 1,
    max_frames: int | None = None,
    formats: Collection[str] = ("pictures", "jsonl"),
) -> VideoSummary:
    """Detects on a video, and writes an annotated video and JSON lines.

    The annotated video `<name>.mp4` has the processed frames at their times, without sound.
    `<name>.jsonl` has one JSON object per frame: `file`, `frame` (its number from 0), `time` (in
    seconds from the start), `width`, `height` and `detections`, as in `detect_files`. Both files
    are complete also after Ctrl-C.

    Args:
        detector: The detector to run.
        source: A video file, the URL of a stream, or a camera; see `open_video`.
        out: Folder to write to.
        score_threshold: Minimum score of a drawn detection.
        json_threshold: Minimum score of a detection in the JSON lines.
        batch_size: Frames per batch.
        every: Detect on every n-th frame.
        max_frames: Maximum number of frames to detect on, or None.
        formats: "pictures" for the annotated video, "jsonl" for the JSON lines. Others are ignored.

    Returns:
        The numbers of frames and detections.

    Raises:
        ValueError: If the source is not a video, or `every` is below 1.
        KeyboardInterrupt: After Ctrl-C, when both files are complete.
    """
    if every < 1:
        raise ValueError(f"every (={every}) must be at least 1")
    num_frames = num_detections = 0
    interrupted = False
    out = Path(out)
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(open_video(source))
        total = container.streams.video[0].frames or None
        bar = progress_bar(total and min(-(-total // every), max_frames or total), "frame")
        name = video_name(source)
        lines = None
        if "jsonl" in formats:
            path = stack.enter_context(atomic(out / f"{name}.jsonl"))
            lines = stack.enter_context(path.open("w", encoding="utf-8"))
        writer = None
        if "pictures" in formats:
            writer = VideoWriter(stack.enter_context(atomic(out / f"{name}.mp4")))
            stack.callback(writer.close)
        # One thread decodes frames in advance, another one draws and encodes. Both keep the order.
        write = stack.enter_context(WriteBehind(batch_size, threads=1))
        frames = read_ahead(
            lambda frame: frame, frames_of(container, every, max_frames), batch_size, threads=1
        )
        try:
            for batch in batched(frames, batch_size):
                found = detector.detect_pixels([frame.pixels for frame in batch])
                for frame, detections in zip(batch, found, strict=True):
                    height, width = frame.pixels.shape[:2]
                    kept = above(detections, json_threshold)
                    num_frames += 1
                    num_detections += len(kept["scores"])
                    if writer is not None:
                        shown = above(detections, score_threshold)
                        write(writer.add, frame, shown, detector.labels)
                    if lines is not None:
                        line = {
                            "file": source,
                            "frame": frame.number,
                            "time": round(frame.seconds, 6),
                            "width": width,
                            "height": height,
                            "detections": json_detections(kept, height, width, detector.labels),
                        }
                        lines.write(json.dumps(line) + "\n")
                bar.add(len(batch))
        except KeyboardInterrupt:  # Ctrl-C stops a camera; the files are completed first
            interrupted = True
        bar.finish()
    if interrupted:
        raise KeyboardInterrupt
    return VideoSummary(num_frames, num_detections)


class VideoWriter:
    """Writes annotated frames as an H.264 video, or as MPEG-4 if PyAV lacks H.264.

    Args:
        path: The .mp4 file. `add` creates it for the first frame; `close` completes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container: Any = None
        self._last = -1

    def add(self, frame: Frame, shown: Detections, labels: tuple[str, ...]) -> None:
        """Draws the detections of a frame and encodes the frame.

        Args:
            frame: The frame. If it is larger than the first frame, it is cut to the same size.
            shown: The detections to draw.
            labels: Class names; `labels[0]` is class 1.
        """
        picture = np.asarray(
            draw_detections(frame.pixels, shown["boxes"], shown["classes"], labels, shown["scores"])
        )
        # The encoders need an even height and width.
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        if not (height and width):
            raise ValueError(f"a frame has {picture.shape[:2]} pixels: a video needs 2 x 2 or more")
        if self._container is None:
            self._container = av.open(str(self._path), "w")
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._stream = self._container.add_stream(codec, rate=30)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            self._stream.time_base = self._stream.codec_context.time_base = _TIME_BASE
            if codec == "mpeg4":
                self._stream.bit_rate = 8 * height * width
        encoded = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(picture[: self._stream.height, : self._stream.width]),
            format="rgb24",
        )
        # The times of encoded frames must increase; those of a damaged video may not.
        self._last = max(round(frame.seconds / _TIME_BASE), self._last + 1)
        encoded.pts, encoded.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(encoded))

    def close(self) -> None:
        """Completes the file. If no frame was added, the file is empty."""
        if self._container is None:
            self._path.touch()
            return
        self._container.mux(self._stream.encode(None))
        self._container.close()


def video_name(source: str) -> str:
    """Returns the name of the output files of a video, without suffix.

    Args:
        source: See `open_video`.

    Returns:
        The name of the file without suffix. For a stream, the URL without user name and password,
        with other characters than letters, digits, ".", "-" and "_" replaced by "_".
    """
    if os.path.exists(source):
        return Path(source).stem
    return re.sub(r"[^\w.-]+", "_", re.sub(r"//[^/@]*@", "//", source)).strip("_")
