"""Runs after signals, with damaged files, locks or a full disk, and with other lengths."""

import dataclasses
import errno
import json
import os
import resource
import signal
import time

import keras
import numpy as np
import pytest

from ssd_keras.files import atomic
from ssd_keras.model import load_model
from ssd_keras.training.interruption import Interrupted, Interruption
from ssd_keras.training.recipe import Recipe, pieces
from ssd_keras.training.run import train
from ssd_keras.training.run_folder import locked
from tests.training.programs import finish, start
from tests.training.runs import RECIPE, narrow, rows


class SignalAt(keras.callbacks.Callback):
    """Sends a signal to this process when a batch of an epoch of Keras begins."""

    def __init__(self, number, span, batch):
        super().__init__()
        self.number, self.span, self.batch, self.now = number, span, batch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.now, batch) == (self.span, self.batch):
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def uninterrupted(records, tmp_path_factory):
    recipe = dataclasses.replace(RECIPE, iterations=8, eval_every=4, cosine=False)
    return train(narrow(), recipe, tmp_path_factory.mktemp("runs") / "whole", [records]), recipe


@pytest.mark.parametrize(
    ("number", "code", "batch", "end"), [(signal.SIGTERM, 143, 0, 5), (signal.SIGINT, 130, 1, 6)]
)
def test_a_signal_ends_the_step_and_the_run_resumes_between_two_spans(
    number, code, batch, end, uninterrupted, records, tmp_path
):
    """A step has two batches. The signal comes in one batch of iteration 5, after the guard."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    whole, recipe = uninterrupted
    callbacks = [SignalAt(number, 1, batch)]
    with pytest.raises(Interrupted, match=rf"iteration {end} of 8 .* resumes the run") as stop:
        train(narrow(), recipe, tmp_path / "run", [records], callbacks=callbacks)
    assert stop.value.exit_code == code
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["4", str(end)]
    resumed = train(narrow(), recipe, tmp_path / "run", [records])
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["4", str(end), "8"]
    for a, b in zip(
        [*whole.variables, *whole.optimizer.variables],
        [*resumed.variables, *resumed.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6, err_msg=a.path)


def test_ctrl_c_of_the_command(records, tmp_path):
    process = start(tmp_path / "run", records, "--iterations=1000", "--eval_every=10")
    while not (tmp_path / "run" / "last.keras").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    error = finish(process, code=130)[1]
    assert "interrupted: the checkpoint of iteration" in error
    assert "the same command resumes the run" in error
    done = int(rows(tmp_path / "run")[-1]["iteration"])
    model = load_model(tmp_path / "run" / "last.keras", compile=True)
    assert int(model.optimizer.iterations) == done < 1000
    assert (tmp_path / "run" / "history.png").exists()


def test_a_signal_cuts_an_evaluation_short():
    interruption, seen = Interruption(), []

    def work():
        seen.append("begun")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        seen.append("ended")

    with interruption.caught():
        interruption.attempt(work)
        interruption.attempt(work)
    assert seen == ["begun"]
    assert interruption.number == signal.SIGTERM


def test_the_previous_checkpoint_replaces_a_damaged_one(finished, copied, records, caplog):
    whole = finished[0]
    data = bytearray((copied / "last.keras").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100] = b"\xff" * 100  # Keras would load it without an error
    (copied / "last.keras").write_bytes(data)
    again = train(narrow(), RECIPE, copied, [records], val_records=records)
    assert "last.keras is damaged" in caplog.text
    assert "previous.keras, at iteration 2" in caplog.text
    assert [row["iteration"] for row in rows(copied)] == ["2", "4"]
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_second_process_is_kept_out(copied, records):
    with (
        locked(copied),
        pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on .*: wait"),
    ):
        train(narrow(), RECIPE, copied, [records], val_records=records)


def test_a_full_disk_names_the_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with (
            pytest.raises(OSError, match=r"last\.keras") as error,
            atomic(tmp_path / "last.keras") as path,
        ):
            path.write_bytes(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_extended(copied, records, capsys):
    longer = dataclasses.replace(RECIPE, iterations=7, eval_every=2)
    model = train(narrow(), longer, copied, [records], val_records=records)
    assert [row["iteration"] for row in rows(copied)] == ["2", "4", "6", "7"]
    assert int(model.optimizer.iterations) == 7
    assert json.loads((copied / "run.json").read_text())["recipe"]["iterations"] == 7
    # The cosine has 7 iterations now: 1e-3 / 2 (1 + cos(pi 6 / 7)) = 4.95e-5 after the 6th.
    np.testing.assert_allclose(float(rows(copied)[2]["learning_rate"]), 4.952e-5, rtol=1e-3)
    assert "iteration 7/7: loss" in capsys.readouterr().out


def test_spans_by_hand():
    def cut(done, iterations, every, unfreeze_at=0):
        recipe = Recipe(
            iterations=iterations,
            eval_every=every,
            freeze=("conv1_1",) if unfreeze_at else (),
            unfreeze_at=unfreeze_at,
        )
        return pieces(done, recipe)

    assert cut(0, 12, 4) == [(0, 4, 3)]
    assert cut(8, 12, 4) == [(8, 4, 1)]
    assert cut(12, 12, 4) == []
    assert cut(0, 10, 4) == [(0, 4, 2), (8, 2, 1)]
    assert cut(5, 12, 4) == [(5, 3, 1), (8, 4, 1)]  # the run was interrupted after iteration 5
    assert cut(0, 3, 4) == [(0, 3, 1)]
    assert cut(0, 12, 4, unfreeze_at=4) == [(0, 4, 1), (4, 4, 2)]
    assert cut(0, 8, 4, unfreeze_at=6) == [(0, 4, 1), (4, 2, 1), (6, 2, 1)]


def test_length_by_hand():
    # 2 epochs of 5 images are 10 images, or 3 steps of 4 images.
    recipe = Recipe(epochs=2, batch_size=2, accumulate=2).resolved(5)
    assert (recipe.iterations, recipe.epochs, recipe.eval_every) == (3, 0, 3)
    recipe = Recipe(iterations=100, eval_every=0).resolved(5)
    assert (recipe.iterations, recipe.eval_every) == (100, 5)
    assert recipe.resolved(5) == recipe
