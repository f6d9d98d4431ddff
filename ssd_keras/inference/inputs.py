"""Finds the inputs of detection: image files, videos, streams, cameras and stdin."""

import dataclasses
import glob
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ssd_keras.images import SUFFIXES

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"),
    *(".3gp", ".ogv", ".mts", ".m2ts"),
)
STDIN = "-"
_STREAM = re.compile(r"(rtsp|rtmp|rtp|udp|http|https|tcp|srt)://|camera:")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")


@dataclasses.dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one run.

    Attributes:
        images: Image files, each once.
        videos: Video files, URLs of streams, and cameras ("camera:0").
        stdin_image: An image that was read from stdin, or None.
    """

    images: list[Path]
    videos: list[str]
    stdin_image: bytes | None = None


def find_inputs(words: Sequence[str], stdin: bytes | None = None) -> Inputs:
    """Divides command-line arguments into images and videos, and checks the files.

    Args:
        words: File names, folders, glob patterns, URLs of streams, "camera:N", or "-" for stdin.
            Folders are searched for images only. Stdin contains either one image or more words, one
            per line.
        stdin: The content of stdin. Default: stdin is read if "-" is among the words.

    Returns:
        The inputs.

    Raises:
        ValueError: If there are no words, a word matches no file, or a file that a word names is
            neither an image nor a video.
    """
    image = None
    words = list(words)
    if STDIN in words:
        content = sys.stdin.buffer.read() if stdin is None else stdin
        words.remove(STDIN)
        if content.startswith(_MAGIC):
            image = content
        else:
            try:
                words += [line for line in content.decode().splitlines() if line.strip()]
            except UnicodeDecodeError as error:
                raise ValueError(
                    "stdin is neither an image nor a list of file names: give one of the two"
                ) from error
    if image is not None and not words:
        return Inputs([], [], image)
    streams = [word for word in words if _STREAM.match(word)]
    files = [word for word in words if not _STREAM.match(word)]
    found = find_images(files) if files or not streams else []
    named = {Path(word) for word in files if os.path.isfile(word)}
    videos = [str(path) for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
    images = [path for path in found if path.suffix.lower() not in VIDEO_SUFFIXES]
    for path in images:
        if path in named and path.suffix.lower() not in SUFFIXES and not _is_image(path):
            raise ValueError(
                f"{path} is neither an image nor a video: images have one of the suffixes "
                f"{', '.join(SUFFIXES)}, videos {', '.join(VIDEO_SUFFIXES)}"
            )
    return Inputs(images, videos + streams, image)


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Finds image files by names, folders and glob patterns.

    Args:
        inputs: File names with any suffix; folders, which are searched recursively for files with
            a suffix in `images.SUFFIXES`; or glob patterns, in which `**` matches any folders.

    Returns:
        The files in the order of the inputs, each file once.

    Raises:
        ValueError: If `inputs` is empty, or an input matches no file.
    """
    if not inputs:
        raise ValueError("inputs is empty: give image files, folders or glob patterns")
    found: dict[Path, Path] = {}  # by resolved path, in order
    for name in inputs:
        matches = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        paths = [path for match in matches for path in _files(Path(match))]
        if not paths:
            raise ValueError(
                f"input {name!r} matches no image: it must be a file, a folder with images "
                f"({', '.join(SUFFIXES)}) or a glob pattern that matches files"
            )
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return [path]


def _is_image(path: Path) -> bool:
    """Returns whether Pillow recognizes the header of a file."""
    try:
        with Image.open(path):
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
