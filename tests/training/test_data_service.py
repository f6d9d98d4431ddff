"""The command `data-service`, and a training that uses it."""

import os
import signal
import subprocess
import sys

import pytest

from ssd_keras.data.records import write_records
from tests.cli import ROOT
from tests.training.programs import end, finish, start
from tests.training.test_run import LABELS, rows, samples


@pytest.fixture
def serve(request):
    """Returns a function that starts a server and waits for its first line of output."""

    def started(*flags):
        process = subprocess.Popen(
            [sys.executable, "-m", "ssd_keras", "data-service", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        request.addfinalizer(lambda: end(process))
        return process, process.stdout.readline()

    return started


def test_a_service_makes_the_batches(serve, tmp_path):
    write_records(samples(5), tmp_path / "train", LABELS, shards=2)
    dispatcher, line = serve("--role=dispatcher", f"--work_dir={tmp_path / 'state'}")
    address = line.removeprefix("dispatcher at ").strip()
    assert address.startswith("grpc://localhost:")
    worker, line = serve("--role=worker", f"--dispatcher={address.removeprefix('grpc://')}")
    assert line.startswith("worker at localhost, working for localhost:")
    flags = ("--iterations=3", "--eval_every=2", f"--service={address}")
    finish(start(tmp_path / "run", tmp_path / "train", *flags))
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["2", "3"]
    for server in (worker, dispatcher):
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0


def test_a_worker_needs_its_dispatcher():
    command = [sys.executable, "-m", "ssd_keras", "data-service", "--role=worker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--dispatcher is missing" in done.stderr
