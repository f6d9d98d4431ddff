"""Writing files so that a reader never sees half of one."""

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
        if path.name.split(".")[1].isdecimal() and path.is_file():
            path.unlink()


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block has succeeded.

    The temporary name ends as `path` does, since some writers go by the ending. What the block
    writes may be a file or a folder; after an exception it is removed and `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
