"""The command `data-service`, and a training that uses it."""

import signal
import time

import pytest

from ssd_keras.data.records import write_records
from tests.cli import in_process, loaded_command
from tests.processes import Program, ssd_keras
from tests.training.programs import end, finish, start
from tests.training.runs import LABELS, rows, samples


@pytest.fixture
def serve(request):
    """Returns a function that starts a server and waits for its first line of output."""

    def started(*flags):
        process = Program(None, ["data-service", *flags])
        request.addfinalizer(lambda: end(process))
        deadline = time.monotonic() + 60
        while "\n" not in (line := process.output()[0]):
            assert process.poll() is None, process.output()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return process, line

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


@pytest.mark.parametrize(
    ("role", "flag"), [("dispatcher", "dispatcher"), ("dispatcher", "host"), ("worker", "work_dir")]
)
def test_flags_of_the_other_role_are_refused(role, flag, capsys):
    with loaded_command("data-service") as module:
        assert in_process(module, f"--role={role}", f"--{flag}=x") == 1
    assert f"--{flag} is not used by --role={role}" in capsys.readouterr().err


def test_a_worker_needs_its_dispatcher():
    done = ssd_keras("data-service", "--role=worker")
    assert done.returncode == 1
    assert "--dispatcher is missing" in done.stderr
