"""Reading TensorFlow 1 checkpoints as arrays."""

import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf


def is_checkpoint(path: str) -> bool:
    """Returns whether a path is the prefix or index of a checkpoint, or a folder or zip file."""
    extension = os.path.splitext(path)[1].lower()
    return os.path.isdir(path) or extension in (".zip", ".index") or os.path.isfile(f"{path}.index")


def checkpoint_files(path: str) -> list[str]:
    """Returns the files of a checkpoint: its zip file, or its data files and then its index.

    Args:
        path: A path for which `is_checkpoint` is true.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If a folder does not hold exactly one checkpoint, or data files are missing.
    """
    if path.lower().endswith(".zip"):
        if not os.path.isfile(path):
            raise FileNotFoundError(f"weights (={path}) must be an existing file")
        return [path]
    if os.path.isdir(path):
        return _files(sorted(str(file) for file in pathlib.Path(path).iterdir()))
    prefix = path.removesuffix(".index")
    if not os.path.isfile(f"{prefix}.index"):
        raise FileNotFoundError(f"weights (={path}) must be an existing file")
    folder = pathlib.Path(prefix).parent
    names = sorted(str(folder / file.name) for file in folder.iterdir())
    return _files(
        [n for n in names if pathlib.Path(n).name.startswith(f"{pathlib.Path(prefix).name}.")]
    )


def _files(names: list[str]) -> list[str]:
    """Returns the data files and then the index of the only checkpoint in a list of files."""
    indices = [name for name in names if name.endswith(".index")]
    if len(indices) != 1:
        found = ", ".join(os.path.basename(name) for name in indices) or "none"
        raise ValueError(
            f"it must hold one checkpoint, but has these .index files: {found}; give the path of "
            "one checkpoint, without the extension .index"
        )
    prefix = indices[0].removesuffix(".index")
    data = [name for name in names if name.startswith(f"{prefix}.data-")]
    if not data:
        raise ValueError(f"{os.path.basename(prefix)}.data-00000-of-00001 is missing")
    return [*data, indices[0]]


def checkpoint_arrays(
    path: str, check_bytes: Callable[[Iterable[int]], None]
) -> dict[str, np.ndarray]:
    """Reads the variables of a checkpoint. Its graph is not loaded.

    Args:
        path: A path for which `is_checkpoint` is true.
        check_bytes: Function that takes sizes in bytes and raises ValueError if their sum exceeds
            a limit.

    Returns:
        Arrays by the name of the variable, in alphabetical order, with the shapes and dtypes of the
        file. Optimizer slots and counters are included.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If it does not hold exactly one checkpoint, or `check_bytes` raises it.
        tf.errors.OpError: If the checkpoint is damaged.
    """
    files = checkpoint_files(path)
    if not path.lower().endswith(".zip"):
        check_bytes(os.path.getsize(name) for name in files)
        return _read(files[-1].removesuffix(".index"), check_bytes)
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        names = _files(sorted(archive.namelist()))
        check_bytes(archive.getinfo(name).file_size for name in names)
        for name in names:
            target = os.path.join(folder, os.path.basename(name))
            with archive.open(name) as source, open(target, "wb") as file:
                while block := source.read(1 << 24):
                    file.write(block)
        return _read(target.removesuffix(".index"), check_bytes)


def _read(prefix: str, check_bytes: Callable[[Iterable[int]], None]) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    names = sorted(name for name in shapes if dtypes[name] != tf.string)
    check_bytes(int(np.prod(shapes[name])) * dtypes[name].size for name in names)
    return {name: reader.get_tensor(name) for name in names}
