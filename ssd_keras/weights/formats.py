"""Reads weights files as NumPy arrays, without running code from a file.

The files come from untrusted sources. The parsers build arrays and no other objects, and sizes are
checked before arrays are allocated.
"""

import argparse
import importlib
import io
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterable
from types import ModuleType
from typing import IO, Any

import h5py
import ml_dtypes
import numpy as np

from ssd_keras.weights.caffemodel import caffemodel_arrays
from ssd_keras.weights.checkpoint import checkpoint_arrays, checkpoint_files, is_checkpoint

Arrays = dict[str, np.ndarray]

# Limit for the size of a file, and for the size of its arrays. The largest known file has 0.55 GB.
MAX_BYTES = 2 << 30
_MAX_HEADER = 100_000_000  # bytes in a safetensors file, the limit of its library

# Older versions can be made to run code despite weights_only: CVE-2025-32434, CVE-2026-24747.
MIN_TORCH = (2, 10)

# The version in the checkpoints of mmdetection's SSDs for 2.0. They were trained before version 2.0
# was tagged (issue 4268 of mmdetection).
_MMDETECTION_2_UNTAGGED = "1.0rc1+5f9f470"


def read_tensors(path: str | os.PathLike[str]) -> Arrays:
    """Reads all arrays of a weights file.

    Args:
        path: A file with one of these extensions: `.npz`, `.safetensors`, `.caffemodel`; `.h5`,
            `.hdf5` or `.keras` of Keras 2 or 3; `.pth`, `.pt`, `.pkl`, `.tar`, `.ckpt` or `.bin` of
            PyTorch, which need the `torch` extra. Or a TensorFlow 1 checkpoint: its prefix
            ("model.ckpt" for model.ckpt.index and model.ckpt.data-00000-of-00001), its `.index`, or
            a folder or `.zip` that holds one.

    Returns:
        Arrays by name, with the shapes and dtypes of the file. The order is that of the file; for
        HDF5 it is alphabetical. The names are:

        - Keras: "<layer>/<variable>", for all layouts of Keras 2 and 3.
        - Caffe: "<layer>/<index>" for weights; names such as
          "conv4_3_norm_mbox_priorbox/min_size" for the tiling, in pixels.
        - PyTorch: those of the state dict in the checkpoint, without the prefix "module." of
          DataParallel. "meta.mmdet_version", int64 [2], is the version of mmdetection that wrote
          the checkpoint, if it is known.
        - TensorFlow: those of the variables, in alphabetical order.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has another extension, is damaged, is too large or holds no arrays;
            if it needs PyTorch, and PyTorch is missing or too old.
    """
    path = os.fspath(path)
    if is_checkpoint(path):
        return _read_checkpoint(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights (={path}) must be an existing file")
    size = os.path.getsize(path)
    if not 0 < size <= MAX_BYTES:
        raise ValueError(f"weights (={path}) has {size} bytes, but must have 1 to {MAX_BYTES}")
    extension = os.path.splitext(path)[1].lower()
    try:
        match extension:
            case ".npz":
                tensors = _read_npz(path)
            case ".safetensors":
                tensors = _read_safetensors(path, size)
            case ".caffemodel":
                with open(path, "rb") as file:
                    tensors = caffemodel_arrays(file.read())
            case ".h5" | ".hdf5":
                tensors = _read_h5(path)
            case ".keras":
                tensors = _read_keras(path)
            case ".pth" | ".pt" | ".pkl" | ".tar" | ".ckpt" | ".bin":
                tensors = _read_torch(path)
            case _:
                raise ValueError(
                    "the extension must be .npz, .h5, .hdf5, .keras, .safetensors, .caffemodel, "
                    "PyTorch's .pth, .pt, .pkl, .tar, .ckpt or .bin, or a TensorFlow checkpoint as "
                    "prefix, .index, folder or .zip"
                )
        if not tensors:
            raise ValueError("the file holds no arrays")
    except Exception as error:  # damaged files make the parsers raise many kinds of exception
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"weights (={path}) cannot be read as {extension}: {reason}") from error
    return tensors


def weight_files(path: str | os.PathLike[str]) -> list[str]:
    """Returns the paths of all files that `read_tensors` reads for a path.

    Only a TensorFlow checkpoint has more than one file.

    Args:
        path: As in `read_tensors`.

    Raises:
        FileNotFoundError: If a checkpoint does not exist.
        ValueError: If a folder does not hold exactly one checkpoint.
    """
    path = os.fspath(path)
    return checkpoint_files(path) if is_checkpoint(path) else [path]


def _read_checkpoint(path: str) -> Arrays:
    try:
        tensors = checkpoint_arrays(path, _check_bytes)
        if not tensors:
            raise ValueError("it holds no arrays")
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files make the parsers raise many kinds of exception
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"weights (={path}) cannot be read as a TensorFlow checkpoint: {reason}"
        ) from error
    return tensors


def _check_bytes(sizes: Iterable[int]) -> None:
    total = sum(sizes)
    if total > MAX_BYTES:
        raise ValueError(f"its arrays take {total} bytes, above the limit of {MAX_BYTES}")


def _read_npz(path: str) -> Arrays:
    # ZipFile never inflates a member beyond the size in the archive's index.
    with zipfile.ZipFile(path) as archive:
        _check_bytes(member.file_size for member in archive.infolist())
        for member in archive.infolist():
            with archive.open(member) as file:
                _check_npy_header(file, member)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _check_npy_header(file: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Checks that an array is not larger than its data: NumPy allocates it before it reads."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(file)
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} has shape {shape} but {member.file_size} bytes")


def _read_safetensors(path: str, size: int) -> Arrays:
    """Reads a safetensors file.

    It has the length of the header (8 bytes), a JSON header with dtypes, shapes and byte ranges,
    and the data.
    """
    dtypes = {
        "F32": np.float32,
        "F64": np.float64,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "I64": np.int64,
    }
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MAX_HEADER):
            raise ValueError(
                f"its header takes {length} of {size} bytes, but may take {_MAX_HEADER} at most"
            )
        header = json.loads(file.read(length))
        data = memoryview(file.read())
    header.pop("__metadata__", None)
    tensors, last = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        (start, end), shape = entry["data_offsets"], tuple(entry["shape"])
        dtype = np.dtype(dtypes[entry["dtype"]])
        # The format forbids tensors that share bytes. Together they could exceed any limit.
        inside = last <= start <= end <= len(data) and min(shape, default=1) >= 0
        last = end
        if not inside or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"{name} of shape {shape} does not fit bytes {start} to {end} of {len(data)}, or "
                "shares bytes with another tensor"
            )
        tensors[name] = np.frombuffer(data[start:end], dtype).reshape(shape)
    return tensors


def _read_torch(path: str) -> Arrays:
    torch = _safe_torch()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_bytes(member.file_size for member in archive.infolist())
    content = _load_without_code(torch, path)
    versions = {}
    if isinstance(content, dict) and isinstance(meta := content.get("meta"), dict):
        version = str(meta.get("mmdet_version"))
        if version.startswith(_MMDETECTION_2_UNTAGGED):
            version = "2.0"
        numbers = re.findall(r"\d+", version)
        if numbers:
            versions["meta.mmdet_version"] = np.array(numbers[:2], int)
    tensors = _state_dict(content, torch.Tensor)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    # An expanded tensor can have a huge shape with few stored numbers.
    _check_bytes(value.numel() * value.element_size() for value in tensors.values())
    bfloat16 = {name for name, value in tensors.items() if value.dtype == torch.bfloat16}
    arrays = {
        name: value.detach().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        if name in bfloat16
        else value.detach().numpy()
        for name, value in tensors.items()
    }
    return arrays | versions


def _safe_torch() -> ModuleType:
    """Imports PyTorch, if the installed version reads untrusted files safely."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ValueError(
            "it needs PyTorch: pip install 'torch>=2.10', or convert the file to .safetensors"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < MIN_TORCH:
        raise ValueError(
            f"torch {torch.__version__} is too old to read untrusted files safely: it must be "
            f"at least {'.'.join(map(str, MIN_TORCH))}"
        )
    return torch


def _load_without_code(torch: ModuleType, path: str) -> Any:
    """Loads the content of a PyTorch file without running code from it.

    PyTorch's own error messages explain how to run the code. Those of this function do not.
    """
    try:
        # Many training scripts save their arguments as a Namespace, which is only a container.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "weights_only" not in str(error):
            raise
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = found[1] if found else "code" if "TorchScript" in str(error) else "other objects"
        raise ValueError(
            f"the file holds more than tensors ({what}), and loading that could run code: save the "
            "tensors alone with torch.save(model.state_dict(), ...)"
        ) from error


def _state_dict(content: Any, tensor: type) -> dict[str, Any]:
    """Returns the tensors of the model in a checkpoint, without those of the optimizer."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"the file holds a {type(content).__name__}, not a state dict")
    named = [
        {k: v for k, v in held.items() if isinstance(k, str) and isinstance(v, tensor)}
        for held in (content, *content.values())
        if isinstance(held, dict)
    ]
    most = max(map(len, named))
    best = [tensors for tensors in named if len(tensors) == most]
    if len(best) > 1 and most:
        raise ValueError(
            f"the file holds {len(best)} state dicts of {most} tensors under {', '.join(content)}: "
            "save the right one to a separate file"
        )
    return best[0]


def _read_keras(path: str) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
        _check_bytes([member.file_size])
        return _read_h5(io.BytesIO(archive.read(member)))


def _read_h5(file: str | IO[bytes]) -> Arrays:
    datasets: dict[str, h5py.Dataset] = {}

    def collect(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            if path.startswith("optimizer/"):
                return
            if item.external or item.is_virtual:
                raise ValueError(f"{path} reads another file, which is not allowed")
            name = _keras_name(path, item)
            datasets[path if name in datasets else name] = item

    with h5py.File(file, "r") as h5:
        h5.visititems(collect)  # does not follow soft links or links to other files
        _check_bytes(dataset.nbytes for dataset in datasets.values())
        return {name: dataset[()] for name, dataset in datasets.items()}


def _keras_name(path: str, dataset: h5py.Dataset) -> str:
    """Returns the name "<layer>/<variable>" for a path inside an HDF5 file of Keras.

    Keras 2 writes `block1_conv1/block1_conv1/kernel:0`, and older versions
    `block1_conv1/block1_conv1_W_1:0`. Files of whole models add the prefix `model_weights/`.
    Keras 3 writes `layers/conv2d/vars/0` and stores the layer's name as an attribute of `vars`.
    """
    parts = path.removeprefix("model_weights/").split("/")
    if len(parts) > 2 and parts[-2] == "vars":
        layer = dataset.parent.attrs.get("name", parts[-3])
        return f"{layer}/{ {'0': 'kernel', '1': 'bias'}.get(parts[-1], parts[-1]) }"
    layer, variable = parts[0], parts[-1].removesuffix(":0")
    for ending, name in (("_W", "kernel"), ("_b", "bias")):
        if variable in (f"{layer}{ending}", f"{layer}{ending}_1"):
            variable = name
    return f"{layer}/{variable}"
