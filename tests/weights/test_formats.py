import io
import json
import os
import zipfile

import h5py
import numpy as np
import pytest

from ssd_keras.weights import caffemodel, formats
from ssd_keras.weights.formats import MAX_BYTES, read_tensors
from tests.reference import projects

ARRAYS = {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "a/bias": np.ones(3, "f4")}


def write(path):
    """Writes a valid file of the format of its suffix."""
    if path.suffix == ".npz":
        np.savez(path, **ARRAYS)
    elif path.suffix == ".safetensors":
        path.write_bytes(projects.safetensors(ARRAYS))
    elif path.suffix == ".caffemodel":
        path.write_bytes(projects.caffemodel([("a", [*ARRAYS.values()])]))
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as f:
            for name, array in ARRAYS.items():
                f[name] = array
    else:
        h5 = io.BytesIO()
        with h5py.File(h5, "w") as f:
            f["layers/dense/vars/0"], f["layers/dense/vars/1"] = ARRAYS.values()
            f["layers/dense/vars"].attrs["name"] = "a"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", h5.getvalue())
    return path


NAMES = {
    ".npz": ["a/kernel", "a/bias"],
    ".safetensors": ["a/kernel", "a/bias"],
    ".caffemodel": ["a/0", "a/1"],
    ".h5": ["a/bias", "a/kernel"],  # HDF5 sorts the names of a group
    ".keras": ["a/kernel", "a/bias"],
}
KINDS = list(NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_arrays(tmp_path, kind):
    tensors = read_tensors(write(tmp_path / f"w{kind}"))
    assert list(tensors) == NAMES[kind]
    for array, expected in zip(
        sorted(tensors.values(), key=np.ndim), sorted(ARRAYS.values(), key=np.ndim), strict=True
    ):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.float32


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused(tmp_path, kind, keep):
    path = write(tmp_path / f"w{kind}")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=rf"w{kind}\) cannot be read as {kind}: "):
        read_tensors(path)


@pytest.mark.parametrize("kind", [*KINDS, ".pth"])
def test_an_empty_file_and_a_text_file_are_refused(tmp_path, kind):
    path = tmp_path / f"w{kind}"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="has 0 bytes"):
        read_tensors(path)
    path.write_bytes(b"<html>404 Not Found</html>" * 20)
    with pytest.raises(ValueError, match=f"cannot be read as {kind}"):
        read_tensors(path)


def test_missing_files_and_unknown_kinds_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.npz.* must be an existing file"):
        read_tensors(tmp_path / "none.npz")
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"w.onnx\) .* must be .npz, .h5"):
        read_tensors(tmp_path / "w.onnx")


def test_a_file_without_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz")
    with pytest.raises(ValueError, match="holds no arrays"):
        read_tensors(tmp_path / "w.npz")


def test_pickled_objects_in_npz_are_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    np.savez(tmp_path / "w.npz", a=np.array([Evil()], dtype=object))
    with pytest.raises(ValueError, match=r"allow_pickle|pickle"):
        read_tensors(tmp_path / "w.npz")
    assert not (tmp_path / "ran").exists()


def test_npz_that_promises_more_than_it_holds_is_refused_before_allocation(tmp_path):
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    npy = io.BytesIO()
    np.lib.format.write_array_header_1_0(npy, header)
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", npy.getvalue())
    with pytest.raises(ValueError, match=r"shape \(1099511627776,\) but 128 bytes"):
        read_tensors(tmp_path / "w.npz")


def test_npz_that_inflates_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "w.npz", a=np.zeros(10**6, np.float32))
    monkeypatch.setattr(formats, "MAX_BYTES", 10**6)
    with pytest.raises(ValueError, match="above the limit of 1000000"):
        read_tensors(tmp_path / "w.npz")


def test_keras_files_that_inflate_beyond_the_limit_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "w.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**6))
    monkeypatch.setattr(formats, "MAX_BYTES", 10**5)
    with pytest.raises(ValueError, match="above the limit of 100000"):
        read_tensors(tmp_path / "w.keras")


def test_files_beyond_the_limit_are_not_opened(tmp_path, monkeypatch):
    np.savez(tmp_path / "w.npz", a=np.zeros(100))
    monkeypatch.setattr(formats, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="bytes, but must have 1 to 100"):
        read_tensors(tmp_path / "w.npz")


def test_h5_of_a_huge_shape_is_refused_before_allocation(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as f:
        f.create_dataset("a/kernel", shape=(MAX_BYTES,), dtype="f4", chunks=(1024,))
    assert (tmp_path / "w.h5").stat().st_size < 10_000
    with pytest.raises(ValueError, match="above the limit"):
        read_tensors(tmp_path / "w.h5")


def test_h5_cannot_read_other_files(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    with h5py.File(tmp_path / "w.h5", "w") as f:
        f.create_dataset("a/kernel", (4,), "f4", external=[(str(secret), 0, 16)])
    with pytest.raises(ValueError, match="a/kernel reads another file"):
        read_tensors(tmp_path / "w.h5")
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["x"] = np.ones(4)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (4,))
    with h5py.File(tmp_path / "w.h5", "w") as f:
        f.create_virtual_dataset("a/kernel", layout)
    with pytest.raises(ValueError, match="a/kernel reads another file"):
        read_tensors(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "w") as f:
        f["a/kernel"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        f["b/kernel"] = np.zeros(2, "f4")
    assert list(read_tensors(tmp_path / "w.h5")) == ["b/kernel"]


def raw_safetensors(header, data=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((1 << 60).to_bytes(8, "little") + b"{}", "header takes"),
        (raw_safetensors(b"{'a'"), "cannot be read"),
        (raw_safetensors([1, 2]), "cannot be read"),
        (
            raw_safetensors(
                {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}, b"1234"
            ),
            r"a of shape \(9,\) does not fit bytes 0 to 36 of 4",
        ),
        (
            raw_safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
            "does not fit bytes",
        ),
        (
            raw_safetensors(
                {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, b"1234"
            ),
            "does not fit bytes",
        ),
        (
            raw_safetensors(
                {
                    name: {"dtype": "F32", "shape": [2], "data_offsets": [start, start + 8]}
                    for name, start in (("a", 0), ("b", 4))
                },
                bytes(12),
            ),
            r"b of shape \(2,\) does not fit bytes 4 to 12 of 12, or shares bytes",
        ),
        (
            raw_safetensors({"a": {"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
            "Q4",
        ),
    ],
)
def test_hostile_safetensors_are_refused(tmp_path, content, message):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "w.safetensors")


def test_caffemodel_blobs_must_hold_what_their_shape_says():
    huge = projects.field(7, projects.field(1, projects.varint(1 << 40))) + projects.field(
        5, b"1234"
    )
    data = projects.field(100, projects.field(1, b"fc6") + projects.field(7, huge))
    with pytest.raises(ValueError, match=r"fc6/0 has shape \(1099511627776,\) but 4 bytes"):
        caffemodel.caffemodel_arrays(data)


def test_safetensors_headers_beyond_the_limit_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_MAX_HEADER", 100)
    (tmp_path / "w.safetensors").write_bytes(raw_safetensors(b"{}" + b" " * 200))
    with pytest.raises(ValueError, match="header takes 202 of 210 bytes, but may take 100 at most"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (projects.field(100, b"") * 20_000, "20000 layers, above the limit of 10000"),
        (projects.field(2, b"") * 20_000, "20000 layers"),
        (
            projects.field(100, projects.field(1, b"fc6") + projects.field(7, b"") * 20_000),
            "fc6 has 20000 blobs, above the limit of 16",
        ),
    ],
)
def test_caffemodels_with_too_many_layers_are_refused_before_parsing(data, message):
    with pytest.raises(ValueError, match=message):
        caffemodel.caffemodel_arrays(data)


def test_old_caffe_biases_of_four_dimensions_become_vectors():
    array = np.arange(3, dtype=np.float32)
    data = projects.caffemodel([("conv1_1", [array.reshape(1, 3, 1, 1), array])], old=True)
    arrays = caffemodel.caffemodel_arrays(data)
    assert arrays["conv1_1/0"].shape == (1, 3, 1, 1)
    np.testing.assert_array_equal(arrays["conv1_1/1"], array)
