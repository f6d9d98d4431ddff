"""Runs the driver of the original program (`referee.cpp`) for `referee.py`."""

import dataclasses
import itertools
import pathlib
import subprocess

import numpy as np


def caffe_label(boxes: np.ndarray, labels: np.ndarray, image: int, difficult=None) -> np.ndarray:
    """Returns rows of a `label` blob, float32 [G, 8]; boxes are `yxyx`."""
    rows = np.zeros((len(labels), 8), np.float32)
    rows[:, 0], rows[:, 1], rows[:, 3:7] = image, labels, boxes[:, [1, 0, 3, 2]]
    if difficult is not None:
        rows[:, 7] = difficult
    return rows


def label_blob(rows: list[np.ndarray]) -> np.ndarray:
    """Returns the `label` blob of a batch, [1, 1, N, 8]: one row of -1 if there is no object."""
    joined = np.concatenate([np.zeros((0, 8), np.float32), *rows])
    return (joined if len(joined) else np.full((1, 8), -1, np.float32))[None, None]


def caffe_images(images: np.ndarray) -> np.ndarray:
    """Converts RGB [B, H, W, 3] to BGR [B, 3, H, W] and subtracts the mean."""
    return (images[..., ::-1] - np.float32([104, 117, 123])).transpose(0, 3, 1, 2)


@dataclasses.dataclass(frozen=True)
class Original:
    """The driver and a folder for its files.

    Attributes:
        driver: Path of the program that is built from `referee.cpp`.
        folder: Folder for network definitions and blobs.
    """

    driver: pathlib.Path
    folder: pathlib.Path

    def net(self, name: str, text: str) -> pathlib.Path:
        """Writes a prototxt."""
        path = self.folder / f"{name}.prototxt"
        path.write_text(f'name: "{name}"\n{text}')
        return path

    def call(self, *words: object) -> str:
        """Runs the driver and returns what it prints."""
        command = [str(word) for word in (self.driver, *words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout

    def write(self, name: str, values: np.ndarray, k: int | None = None) -> None:
        """Writes an input blob for pass k, or for all passes if k is None."""
        values = np.ascontiguousarray(values, np.float32)
        head = np.array([values.ndim, *values.shape], np.int32).tobytes()
        tail = "" if k is None else f"_{k}"
        (self.folder / f"{name}{tail}.bin").write_bytes(head + values.tobytes())

    def read(self, name: str, k: int = 0) -> np.ndarray:
        """Reads an output blob."""
        data = (self.folder / f"out_{name}_{k}.bin").read_bytes()
        rank = np.frombuffer(data, np.int32, 1)[0]
        shape = np.frombuffer(data, np.int32, rank, 4)
        return np.frombuffer(data, np.float32, -1, 4 + 4 * rank).reshape(shape)

    def clear(self) -> None:
        """Deletes all blobs."""
        for path in itertools.chain(self.folder.glob("*.bin")):
            path.unlink()


def our_offsets(loc: np.ndarray) -> np.ndarray:
    """Converts `mbox_loc` [B, P * 4] to offsets [B, P, 4] in the order (cy, cx, h, w)."""
    return loc.reshape(len(loc), -1, 4)[..., [1, 0, 3, 2]]


def caffe_offsets(offsets: np.ndarray) -> np.ndarray:
    """Converts offsets [B, P, 4] to `mbox_loc` [B, P * 4]."""
    return offsets[..., [1, 0, 3, 2]].reshape(len(offsets), -1)


def prior_blob(boxes: np.ndarray, variances=(0.1, 0.1, 0.2, 0.2)) -> np.ndarray:
    """Converts default boxes [P, 4] to `mbox_priorbox` [1, 2, P * 4]."""
    corners = boxes[:, [1, 0, 3, 2]].reshape(-1)
    return np.stack([corners, np.tile(np.float32(variances), len(boxes))])[None]
