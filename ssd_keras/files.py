"""Files: atomic writes, errors that name a file, and the folders that come with the package."""

import contextlib
import errno
import math
import os
import re
import reprlib
import shutil
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MAX_REASON = 500  # characters of a parser's message; some contain the whole file


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that `atomic` left in a folder when its process was killed.

    No other process may write to the folder at the same time.

    Args:
        folder: The folder; its subfolders are not searched.
    """
    for path in folder.glob(".*"):
        if path.name.split(".")[1].isdecimal():
            _remove(path)


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Context manager that replaces `path` only if the block succeeds.

    The block writes a file or a folder to the temporary path that it gets. If the block succeeds,
    the temporary path is renamed to `path`. If it raises an exception, the temporary path is
    removed, and `path` is unchanged. A folder that exists at `path` is first renamed to a hidden
    name and is removed at the end. If the second rename fails, the first is undone. If the process
    is killed between the two renames, both folders remain under hidden names.

    Args:
        path: File or folder to replace. Missing parent folders are created. If it is a symbolic
            link, the target of the link is replaced.

    Yields:
        A hidden path in the same folder. It keeps the extension of `path`, because some writers
        choose the format by the extension.

    Raises:
        OSError: If a file or folder cannot be renamed or removed, or if the disk is full. The
            message names `path`.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    replaced = path.with_name(f".{os.getpid()}.old.{path.name}")
    _remove(temporary)  # left by an earlier process with the same id
    try:
        with naming_full_disk(path):
            yield temporary
        if temporary.is_dir() and path.is_dir():
            _remove(replaced)
            os.replace(path, replaced)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None and error.errno:  # such as for a full disk
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        if replaced.exists() and not path.exists():
            os.replace(replaced, path)
        _remove(temporary)
        _remove(replaced)


@contextlib.contextmanager
def naming_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Context manager that names the file when the disk is full.

    The writers of NumPy, h5py, Pillow and TensorFlow raise different exceptions when the disk is
    full. Most have no file name, but all contain the message of the operating system.

    Args:
        path: The file or folder that the block writes.

    Raises:
        OSError: If the disk or the quota is full, or the file exceeds the size limit of the file
            system.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(number) in str(error):
                advice = f"{os.strerror(number)}; free space, or write to another disk"
                raise OSError(number, advice, os.fspath(path)) from error
        raise


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str], remedy: str, *, fault: str = "cannot be read"
) -> Iterator[None]:
    """Context manager that replaces any exception of a parser by a ValueError that names the file.

    Damaged files make parsers raise many kinds of exception, and most messages do not name the
    file. ValueError and OSError that already name the file, and ImportError, are not replaced.

    Args:
        path: The file that the block reads.
        remedy: Advice to the user; the message ends with it.
        fault: What is wrong with the file, such as "is not JSON"; it follows the path.

    Raises:
        ValueError: If the block raises an exception. The message is
            "<path> <fault> (<reason>): <remedy>".
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        if isinstance(error, ValueError | OSError) and os.fspath(path) in str(error):
            raise
        raise ValueError(f"{os.fspath(path)} {fault} ({reason(error)}): {remedy}") from error


def reason(error: BaseException) -> str:
    """Returns the message of an exception as one line, without the node names of TensorFlow."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error)
    # In a graph, TensorFlow writes the message of an operation on the line above the name of its
    # node, after many other lines.
    operation = re.search(r"(.+)\n\s*\[\[\{\{node", text)
    if operation:
        text = re.sub(r".*assertion failed: \[(.*)\]", r"\1", operation[1])
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\].*", "", text)
    lines = [line.strip() for line in text.splitlines()]
    return next((line[:_MAX_REASON] for line in lines if line), type(error).__name__)


def check_types(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raises a `ValueError` that names the first value of a wrong type.

    Args:
        values: Values from a JSON file, by name.
        kinds: Their types by name, such as `int`, `tuple[str, ...]` or `dict[str, int] | None`.
            A tuple may also be a list. A float must be finite and may be an integer.
    """
    for name, kind in kinds.items():
        if name not in values:
            raise ValueError(f"{name!r} is missing")
        if not _has_type(values[name], kind):
            expected = getattr(kind, "__name__", None) if isinstance(kind, type) else None
            value = reprlib.repr(values[name])
            raise ValueError(f"{name!r} (={value}) must be of type {expected or kind}")


def _has_type(value: Any, kind: Any) -> bool:
    # No `match` statement: AutoGraph cannot convert it, and the input pipeline reads data cards
    # inside a graph.
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return any(_has_type(value, part) for part in parts)
    if origin in (tuple, list):
        return isinstance(value, list | tuple) and all(_has_type(v, parts[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_has_type(v, parts[1]) for v in value.values())
    if isinstance(value, bool) and kind in (int, float):
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Returns the content of a text file, without a byte order mark.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file that are not empty, without leading and trailing spaces.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not UTF-8.
    """
    lines = (line.strip() for line in read_text(path).splitlines())
    return [line for line in lines if line]


def readable(name: str) -> str:
    """Returns a file name as valid Unicode. Bytes that are not UTF-8 become escapes.

    The result does not depend on the locale of the system.

    Args:
        name: The name; Python represents invalid bytes in it by surrogates.
    """
    try:
        content = name.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # another surrogate, from a JSON file
        content = name.encode(errors="backslashreplace")
    return content.decode(errors="backslashreplace")


def shipped(name: str) -> Path:
    """Returns the path of a folder that comes with the package.

    An installed wheel has the folder inside the package. A checkout has it at the top level.

    Args:
        name: "labels" or "serving".
    """
    package = Path(__file__).parent
    installed = package / "shipped" / name
    original = package.parent / {"labels": "data/labels", "serving": "export/serving"}[name]
    return installed if installed.is_dir() else original
