import zipfile

import numpy as np
import pytest

from ssd_keras.weights import formats
from ssd_keras.weights.formats import read_tensors, weight_files
from tests.reference import projects

ARRAYS = {"net/w": np.arange(6, dtype=np.float32).reshape(2, 3), "global_step": np.int64(7)}
FILES = ("net.ckpt.data-00000-of-00001", "net.ckpt.index")


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint, alone in a folder."""
    projects.tf1_checkpoint(tmp_path / "net.ckpt", {**ARRAYS, "text": np.array(b"graph")})
    return tmp_path / "net.ckpt"


def zipped(prefix, names=FILES, folder=""):
    path = prefix.parent / "net.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(prefix.parent / name, f"{folder}{name}")
    return path


@pytest.mark.parametrize("form", ["prefix", "index", "folder", "zip", "zip with a folder"])
def test_every_form_gives_the_arrays(prefix, form):
    path = {
        "prefix": prefix,
        "index": f"{prefix}.index",
        "folder": prefix.parent,
        "zip": zipped(prefix),
        "zip with a folder": zipped(prefix, folder="checkpoints/"),
    }[form]
    tensors = read_tensors(path)
    assert list(tensors) == ["global_step", "net/w"]  # text is not a number
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(tensors[name], array)
    files = [file.rpartition("/")[2] for file in weight_files(path)]
    assert files == (["net.zip"] if form.startswith("zip") else list(FILES))


def test_a_prefix_is_not_the_start_of_another_name(prefix):
    projects.tf1_checkpoint(prefix.parent / "net.ckpt-2", {"other": np.float32(1)})
    assert "net/w" in read_tensors(prefix)
    with pytest.raises(ValueError, match=r"one checkpoint.*net.ckpt-2.index, net.ckpt.index"):
        read_tensors(prefix.parent)


def test_says_what_is_wrong(prefix, monkeypatch):
    with pytest.raises(FileNotFoundError, match="must be an existing file"):
        read_tensors(prefix.parent / "none.zip")
    with pytest.raises(FileNotFoundError, match="must be an existing file"):
        read_tensors(prefix.parent / "none.ckpt")
    with pytest.raises(ValueError, match=r"has these \.index files: none"):
        read_tensors(zipped(prefix, FILES[:1]))
    monkeypatch.setattr(formats, "MAX_BYTES", 31)  # the arrays take 32
    with pytest.raises(ValueError, match="above the limit of 31"):
        read_tensors(prefix)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 10])
def test_a_damaged_checkpoint_is_refused(prefix, name, keep):
    file = prefix.parent / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cannot be read as a TensorFlow checkpoint"):
        read_tensors(prefix)


def test_missing_data_is_refused(prefix):
    (prefix.parent / FILES[0]).unlink()
    with pytest.raises(ValueError, match=r"net.ckpt.data-00000-of-00001 is missing"):
        read_tensors(prefix)
