"""Files: atomic writes, reading of text, and the folders that come with the package."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


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

    The block writes a file or a folder to the temporary path that it gets. On success that path is
    renamed to `path`. On an exception it is removed, and `path` is unchanged. A folder at `path` is
    first renamed to a hidden name and is removed at the end. If the second rename fails, the first
    is undone. If the process is killed between the two, both folders remain under hidden names.

    Args:
        path: File or folder to replace. Missing parent folders are created. If it is a symbolic
            link, the target of the link is replaced.

    Yields:
        A hidden path in the same folder. It keeps the extension of `path`, by which some writers
        choose the format.

    Raises:
        OSError: If a file or folder cannot be renamed or removed.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    replaced = path.with_name(f".{os.getpid()}.old.{path.name}")
    _remove(temporary)  # left by an earlier process with the same id
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
