"""PyTorch files, read with a fake of PyTorch, or with PyTorch if it is installed."""

import argparse
import contextlib
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest

from ssd_keras.weights import formats
from ssd_keras.weights.formats import read_tensors


def test_pytorch_files_require_a_recent_torch(tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"pip install 'torch>=2.10'"):
        read_tensors(tmp_path / "w.pth")
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.9.1+cpu"))
    with pytest.raises(ValueError, match=r"torch 2.9.1\+cpu is too old .* at least 2.10"):
        read_tensors(tmp_path / "w.pth")


class FakeTensor:
    """The part of `torch.Tensor` that the reader uses."""

    dtype = "float32"

    def __init__(self, *values, size=4):
        self.values, self.size = np.array(values, "f4"), size

    def numel(self):
        return self.values.size

    def element_size(self):
        return self.size

    def detach(self):
        return self

    def numpy(self):
        return self.values


def read_with_fake_torch(path, monkeypatch, content, data=b"x"):
    """Reads a file with a fake PyTorch that returns `content`."""

    def load(path, *, map_location, weights_only):
        assert (map_location, weights_only) == ("cpu", True)
        if isinstance(content, Exception):
            raise content
        return content

    def safe_globals(allowed):
        assert allowed == [argparse.Namespace]
        return contextlib.nullcontext()

    fake = types.SimpleNamespace(
        __version__="2.14.1+cpu",
        Tensor=FakeTensor,
        bfloat16="bfloat16",
        load=load,
        serialization=types.SimpleNamespace(safe_globals=safe_globals),
    )
    monkeypatch.setitem(sys.modules, "torch", fake)
    path.write_bytes(data)
    return read_tensors(path)


STATE = {"a": FakeTensor(1), "b": FakeTensor(2)}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "args": argparse.Namespace(lr=1), "optimizer": {"state": {0: STATE}}},
        {"model_state_dict": STATE, "loss": FakeTensor(3), "scheduler": {"step": 3}},
        {"net": {f"module.{name}": value for name, value in STATE.items()}},
        {**STATE, 0: FakeTensor(3), "steps": 3},
    ],
)
def test_the_state_dict_is_found_in_checkpoints_of_many_scripts(tmp_path, monkeypatch, content):
    for name in ("w.pth", "w.pth.tar", "w.ckpt", "w.bin"):
        tensors = read_with_fake_torch(tmp_path / name, monkeypatch, content)
        assert {name: float(values[0]) for name, values in tensors.items()} == {"a": 1, "b": 2}


def test_mmdetections_version_is_kept(tmp_path, monkeypatch):
    for meta, version in (
        ({"mmdet_version": "2.14.0+x"}, [2, 14]),
        ({"mmdet_version": "1.0rc1+5f9f470"}, [2, 0]),  # the version of the SSDs released for 2.0
        ({"mmdet_version": "1.0rc1+0123456"}, [1, 0]),
        ({"epoch": 1}, None),
    ):
        content = {"meta": meta, "state_dict": STATE}
        tensors = read_with_fake_torch(tmp_path / "w.pth", monkeypatch, content)
        found = tensors.pop("meta.mmdet_version", None)
        assert version == (None if found is None else found.tolist())
        assert set(tensors) == {"a", "b"}


ADVICE = "Re-running with `weights_only` set to `False` will likely succeed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            pickle.UnpicklingError(f"{ADVICE}\nUnsupported global: GLOBAL numpy.core.x was not"),
            r"more than tensors \(numpy.core.x\), .*state_dict\(\)",
        ),
        (pickle.UnpicklingError(ADVICE), r"more than tensors \(other objects\)"),
        (
            RuntimeError(f"Cannot use ``weights_only=True`` with TorchScript archives. {ADVICE}"),
            r"more than tensors \(code\)",
        ),
        (RuntimeError("invalid header or archive is corrupted"), "archive is corrupted"),
        ({0: FakeTensor(1)}, "holds no arrays"),
        ([FakeTensor(1)], "holds a list, not a state dict"),
        ({"g": STATE, "ema": STATE}, "2 state dicts of 2 tensors under g, ema"),
        ({"a": FakeTensor(1, size=1 << 40)}, "above the limit"),
    ],
)
def test_files_that_pytorch_refuses_are_refused_without_its_advice(
    tmp_path, monkeypatch, content, message
):
    with pytest.raises(ValueError, match=message) as error:
        read_with_fake_torch(tmp_path / "w.pth", monkeypatch, content)
    assert "weights_only" not in str(error.value)


def test_archives_of_pytorch_that_inflate_beyond_the_limit_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "big.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/0", bytes(10**6))
    big = (tmp_path / "big.pth").read_bytes()
    monkeypatch.setattr(formats, "MAX_BYTES", 10**5)
    with pytest.raises(ValueError, match="above the limit of 100000"):
        read_with_fake_torch(tmp_path / "w.pth", monkeypatch, STATE, big)


def test_pytorch_files_are_read_without_unpickling_objects(tmp_path):
    torch = pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for legacy in (False, True):
        options = {"_use_new_zipfile_serialization": not legacy}
        state = {"a": torch.arange(3.0), "b": torch.ones(2).bfloat16()}
        for content in (
            state,
            {"model": state, "args": argparse.Namespace(a=3)},
            {"state_dict": state},
        ):
            torch.save(content, tmp_path / "w.pth", **options)
            tensors = read_tensors(tmp_path / "w.pth")
            np.testing.assert_array_equal(tensors["a"], [0, 1, 2])
            assert tensors["b"].dtype.name == "bfloat16"
        torch.save({"a": Evil()}, tmp_path / "w.pth", **options)
        with pytest.raises(ValueError, match=r"more than tensors .*, and loading that"):
            read_tensors(tmp_path / "w.pth")
        assert not (tmp_path / "ran").exists()
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="above the limit"):
        read_tensors(tmp_path / "w.pth")
