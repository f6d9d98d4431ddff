"""Training with the command on several devices and in several processes."""

import json
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.data import pipeline
from ssd_keras.data.records import write_records
from ssd_keras.model import load_model
from ssd_keras.training.devices import make_strategy
from tests.tiny import TINY
from tests.training.programs import cluster, end, finish, start
from tests.training.runs import LABELS, rows, samples

SPANS = ("--iterations=60", "--eval_every=10", "--learning_rate=1e-3")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = tmp_path_factory.mktemp("records") / "train"
    write_records(samples(6), directory, LABELS, shards=2)
    return directory


@pytest.fixture(scope="module")
def one_device(records, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "one"
    finish(start(run_dir, records, *SPANS, f"--val_records={records}"))
    return run_dir


def assert_same_run(run_dir, other, atol):
    """Checks that two runs have the same weights, momentum and losses."""
    ours, theirs = (load_model(d / "last.keras", compile=True) for d in (run_dir, other))
    for a, b in zip(
        [*ours.variables, *ours.optimizer.variables],
        [*theirs.variables, *theirs.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=atol, rtol=1e-4, err_msg=a.path)
    for a, b in zip(rows(run_dir), rows(other), strict=False):
        assert a["iteration"] == b["iteration"]
        np.testing.assert_allclose(float(a["loss"]), float(b["loss"]), rtol=1e-4)
        assert a["val_mean_ap"] == b["val_mean_ap"]


def test_two_devices_train_as_one_does(one_device, records, tmp_path):
    flags = (*SPANS, "--strategy=mirrored", f"--val_records={records}")
    finish(start(tmp_path / "two", records, *flags, devices=2))
    assert_same_run(one_device, tmp_path / "two", atol=1e-6)


def wait_for(path, *processes):
    """Waits until a file exists, and checks that the processes still run."""
    while not path.exists():
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.1)


def test_two_processes_survive_a_kill_and_a_signal(one_device, records, tmp_path, request):
    run_dir = tmp_path / "run"

    def workers():
        flags = (*SPANS, "--strategy=multiworker", f"--val_records={records}")
        started = [start(run_dir, records, *flags, env=env) for env in cluster(2)]
        for process in started:
            request.addfinalizer(lambda process=process: end(process))
        return started

    # One worker is killed. The other one ends with an error instead of waiting forever.
    chief, other = workers()
    wait_for(run_dir / "last.keras", chief, other)
    other.kill()
    chief.communicate(timeout=120)
    assert chief.returncode not in (0, None)
    other.communicate()

    # Both workers resume. A signal to one of them stops both, after the checkpoint.
    (run_dir / "previous.keras").unlink(missing_ok=True)
    chief, other = workers()
    wait_for(run_dir / "previous.keras", chief, other)
    other.send_signal(signal.SIGTERM)
    for process in (chief, other):
        assert "the same command resumes the run" in finish(process, code=143)[1]
    assert int(rows(run_dir)[-1]["iteration"]) < 60

    for process in workers():
        finish(process)
    assert int(rows(run_dir)[-1]["iteration"]) == 60
    ours, theirs = (load_model(d / "last.keras", compile=True) for d in (one_device, run_dir))
    for a, b in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6, rtol=1e-4, err_msg=a.path)


def test_parts_of_a_batch_are_its_rows(records):
    """For batches of 4 images, one of two workers gets rows 0 and 1, the other rows 2 and 3."""

    def batches(part):
        dataset = pipeline.train_dataset(records, TINY, 4, repeat=True, start_step=1, part=part)
        return [x.numpy() for x, _ in dataset.take(3)]

    whole, first, second = batches((0, 1)), batches((0, 2)), batches((1, 2))
    for a, b, c in zip(whole, first, second, strict=True):
        np.testing.assert_array_equal(a, np.concatenate([b, c]))
    with pytest.raises(ValueError, match=r"part \(=\(0, 3\)\) .* divisor of batch_size \(=4\)"):
        batches((0, 3))


def test_a_cluster_must_be_given(monkeypatch):
    for text in ("", "{}", json.dumps({"cluster": {"worker": []}, "task": {"index": 0}})):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(ValueError, match=r"TF_CONFIG .* must list the workers"):
            make_strategy("multiworker")
    with pytest.raises(ValueError, match=r"strategy \(='tpu'\)"):
        make_strategy("tpu")
    assert make_strategy("none") is tf.distribute.get_strategy()
