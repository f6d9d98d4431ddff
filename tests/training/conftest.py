import shutil

import pytest

from ssd_keras.data.records import write_records
from ssd_keras.training.run import train
from tests.training.runs import LABELS, RECIPE, narrow, samples


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """A record set of five images."""
    directory = tmp_path_factory.mktemp("records") / "train"
    write_records(samples(5), directory, LABELS, shards=2)
    return directory


@pytest.fixture(scope="session")
def finished(records, tmp_path_factory):
    """A finished run of `RECIPE`: its model and its folder."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return train(narrow(), RECIPE, run_dir, [records], val_records=records), run_dir


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the folder of `finished`, which the test may change."""
    return shutil.copytree(finished[1], tmp_path / "copy")
