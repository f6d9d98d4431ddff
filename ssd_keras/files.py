"""Files: atomic writes, text, and the folders that come with the package."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def remove_leftovers(folder: Path) -> None:
    """Removes what `atomic` left in a folder when its process was killed.

    For folders that one process at a time writes to.
    """
    for path in folder.glob(".*"):
        if path.name.split(".")[1].isdecimal():
            _remove(path)


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block has succeeded.

    The temporary name ends as `path` does, since some writers go by the ending. What the block
    writes may be a file or a folder; after an exception it is removed and `path` is untouched.
    A folder in the way is moved aside first, and back if need be: two renames, so that a kill
    between them leaves both, under hidden names. Behind a symbolic link its target is replaced.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    replaced = path.with_name(f".{os.getpid()}.old.{path.name}")
    _remove(temporary)  # of an earlier process of the same number
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            _remove(replaced)
            os.replace(path, replaced)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None and error.errno:  # a full disk: the system names no file
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        if replaced.exists() and not path.exists():
            os.replace(replaced, path)
        _remove(temporary)
        _remove(replaced)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Returns a text file's content; a mark of UTF-8 at its start is no part of it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file without surrounding space, and without empty ones."""
    lines = (line.strip() for line in read_text(path).splitlines())
    return [line for line in lines if line]


def shipped(name: str) -> Path:
    """A folder that comes with the package: "labels" or "serving".

    A wheel has a copy of it inside the package; in a checkout it is the original.
    """
    package = Path(__file__).parent
    installed = package / "shipped" / name
    original = package.parent / {"labels": "data/labels", "serving": "export/serving"}[name]
    return installed if installed.is_dir() else original
