"""Reading weights files as arrays. Nothing in a file is run, and no object of it is made.

The files come from strangers: formats are parsed by libraries that build arrays only, and sizes
are checked before arrays are allocated.
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
from typing import IO, Any

import h5py
import ml_dtypes
import numpy as np

from ssd_keras.weights.caffemodel import caffemodel_arrays

# mmdetection's SSDs of 2.0 were trained before that was tagged (its issue 4268).
_MMDETECTION_2_UNTAGGED = "1.0rc1+5f9f470"
MAX_BYTES = 2 << 30  # of the arrays of a file; the largest real one, VGG16 with top, has 0.55e9

_MAX_HEADER = 100_000_000  # of a safetensors file, as in its own library

# Older ones can be made to run code in spite of weights_only: CVE-2025-32434, CVE-2026-24747.
MIN_TORCH = (2, 10)

Tensors = dict[str, np.ndarray]


def read_tensors(path: str | os.PathLike[str]) -> Tensors:
    """Reads all arrays of a weights file.

    Args:
        path: `.npz`, `.safetensors` or `.caffemodel`; `.h5`, `.hdf5` or `.keras` of Keras 2 or 3;
            `.pth`, `.pt`, `.pkl`, `.tar`, `.ckpt` or `.bin` of PyTorch, which needs the `torch`
            extra.

    Returns:
        Arrays by name, in the order of the file (HDF5: of the names). Keras's several layouts all
        become "<layer>/<variable>"; of a `.caffemodel` they are "<layer>/<index>", and the tiling
        as in "conv4_3_norm_mbox_priorbox/min_size", in pixels. PyTorch's are those of the state
        dict in a checkpoint, without the "module." of DataParallel, and the version of mmdetection
        that wrote it as "meta.mmdet_version".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, damaged, too large or without arrays; if it needs
            PyTorch, and that is missing or too old.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights (={path}) must be an existing file")
    size = os.path.getsize(path)
    if not 0 < size <= MAX_BYTES:
        raise ValueError(f"weights (={path}) has {size} bytes, which must be 1 to {MAX_BYTES}")
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
                    "it must be .npz, .h5, .hdf5, .keras, .safetensors, .caffemodel, or PyTorch's "
                    ".pth, .pt, .pkl, .tar, .ckpt or .bin"
                )
        if not tensors:
            raise ValueError("it holds no arrays")
    except Exception as error:  # parsers raise almost anything on damaged bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"weights (={path}) cannot be read as {extension}: {reason}") from error
    return tensors


def _check_bytes(sizes: Iterable[int]) -> None:
    total = sum(sizes)
    if total > MAX_BYTES:
        raise ValueError(f"its arrays would take {total} bytes, above the limit of {MAX_BYTES}")


def _read_npz(path: str) -> Tensors:
    with zipfile.ZipFile(path) as archive:  # which never inflates more than the size in its index
        _check_bytes(member.file_size for member in archive.infolist())
        for member in archive.infolist():
            with archive.open(member) as file:
                _check_npy_header(file, member)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _check_npy_header(file: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Refuses a member whose header promises more than it holds: NumPy would allocate it."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(file)
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} has shape {shape} but {member.file_size} bytes")


def _read_safetensors(path: str, size: int) -> Tensors:
    """The format is a length, a JSON header with shapes and byte ranges, and the bytes."""
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
                f"its header would take {length} of {size} bytes; {_MAX_HEADER} are allowed"
            )
        header = json.loads(file.read(length))
        data = memoryview(file.read())
    header.pop("__metadata__", None)
    tensors, last = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        (start, end), shape = entry["data_offsets"], tuple(entry["shape"])
        dtype = np.dtype(dtypes[entry["dtype"]])
        # Tensors that share bytes, which the format forbids, could be larger than any file.
        inside = last <= start <= end <= len(data) and min(shape, default=1) >= 0
        last = end
        if not inside or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"{name} of shape {shape} cannot be bytes {start} to {end} of {len(data)}, or "
                "shares them with another"
            )
        tensors[name] = np.frombuffer(data[start:end], dtype).reshape(shape)
    return tensors


def _read_torch(path: str) -> Tensors:
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
    # A tensor may repeat a few stored numbers into a huge shape.
    _check_bytes(value.numel() * value.element_size() for value in tensors.values())
    bfloat16 = {name for name, value in tensors.items() if value.dtype == torch.bfloat16}
    arrays = {
        name: value.detach().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        if name in bfloat16
        else value.detach().numpy()
        for name, value in tensors.items()
    }
    return arrays | versions


def _safe_torch() -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ValueError(
            "that needs PyTorch: pip install 'torch>=2.10', or give it as .safetensors"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < MIN_TORCH:
        raise ValueError(
            f"torch {torch.__version__} is too old to read files of strangers safely: it must be "
            f"at least {'.'.join(map(str, MIN_TORCH))}"
        )
    return torch


def _load_without_code(torch: Any, path: str) -> Any:
    """What a file of PyTorch holds. Its own messages tell how to run the code in it; ours not."""
    try:
        # Many scripts save their arguments, too; a Namespace does no more than hold them.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "weights_only" not in str(error):
            raise
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = found[1] if found else "code" if "TorchScript" in str(error) else "other objects"
        raise ValueError(
            f"it holds more than tensors ({what}), and loading that could run its code: have it "
            "saved by torch.save(model.state_dict(), ...)"
        ) from error


def _state_dict(content: Any, tensor: type) -> dict[str, Any]:
    """The tensors of a checkpoint, which may hold the optimizer's and others beside them."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
    named = [
        {k: v for k, v in held.items() if isinstance(k, str) and isinstance(v, tensor)}
        for held in (content, *content.values())
        if isinstance(held, dict)
    ]
    most = max(map(len, named))
    best = [tensors for tensors in named if len(tensors) == most]
    if len(best) > 1 and most:
        raise ValueError(
            f"it holds {len(best)} state dicts of {most} tensors under {', '.join(content)}: have "
            "the one that is wanted saved alone"
        )
    return best[0]


def _read_keras(path: str) -> Tensors:
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
        _check_bytes([member.file_size])
        return _read_h5(io.BytesIO(archive.read(member)))


def _read_h5(file: str | IO[bytes]) -> Tensors:
    datasets: dict[str, h5py.Dataset] = {}

    def collect(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            if path.startswith("optimizer/"):
                return
            if item.external or item.is_virtual:
                raise ValueError(f"{path} reads another file, which weights have no need of")
            name = _keras_name(path, item)
            datasets[path if name in datasets else name] = item

    with h5py.File(file, "r") as h5:
        h5.visititems(collect)  # follows neither soft links nor links to other files
        _check_bytes(dataset.nbytes for dataset in datasets.values())
        return {name: dataset[()] for name, dataset in datasets.items()}


def _keras_name(path: str, dataset: h5py.Dataset) -> str:
    """The "<layer>/<variable>" of a path inside an HDF5 file that Keras wrote.

    Keras 2: `block1_conv1/block1_conv1/kernel:0`, older `block1_conv1/block1_conv1_W_1:0`; whole
    models have `model_weights/` in front. Keras 3: `layers/conv2d/vars/0`, with the layer's name
    as an attribute of `vars`.
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
