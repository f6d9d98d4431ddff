"""Shards over Apache Beam; the logic without Beam is tested with the shards themselves."""

import functools
import importlib.util
import json

import pytest

from ssd_keras.data.prepare import open_source, prepare_records
from ssd_keras.data.record_shards import merge_shards, shard_writer
from tests.cli import in_process, loaded_command


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def counting(folder):
    """Starts a process of shards, and leaves a file for each start."""
    (folder / f"start-{len(list(folder.glob('start-*')))}").touch()

    def process(shard):
        if shard == "bad":
            raise ValueError("this shard is bad")
        yield "dead", {"item": f"{shard}a"}
        yield "dead", {"item": f"{shard}b"}
        yield "done", f"shard {shard}"

    return process


def test_the_outputs_of_the_transform(tmp_path):
    beam = pytest.importorskip("apache_beam")
    from apache_beam.testing.util import assert_that, equal_to

    from ssd_keras.beam_shards import Shards

    with beam.Pipeline("DirectRunner") as pipeline:
        out = pipeline | beam.Create([1, 2, 3]) | Shards(functools.partial(counting, tmp_path))
        assert_that(out.done, equal_to([f"shard {k}" for k in (1, 2, 3)]), "done")
        letters = [{"item": f"{k}{name}"} for k in (1, 2, 3) for name in "ab"]
        assert_that(out.dead, equal_to(letters), "dead")
    assert len(list(tmp_path.glob("start-*"))) == 1  # one process loads once


def test_counts_and_failures(tmp_path):
    pytest.importorskip("apache_beam")
    from ssd_keras.beam_shards import run_over_beam

    start = functools.partial(counting, tmp_path)
    assert run_over_beam(start, [1, 2], "DirectRunner", []) == (2, 4)
    with pytest.raises(Exception, match="this shard is bad"):
        run_over_beam(start, [1, "bad"], "DirectRunner", [])


def test_records_have_the_bytes_of_one_job(tmp_path):
    pytest.importorskip("apache_beam")
    from ssd_keras.beam_shards import run_over_beam

    whole = prepare_records(open_source("shapes", num_images=4), tmp_path / "one", 3)
    start = functools.partial(shard_writer, "shapes", {"num_images": 4}, tmp_path / "many", 3)
    assert run_over_beam(start, range(3), "DirectRunner", []) == (3, 0)
    assert merge_shards(tmp_path / "many") == whole
    assert content(tmp_path / "many") == content(tmp_path / "one")


def test_the_flags_of_prepare(tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--source=shapes", "--num_images=2", "--shards=2", f"--out={out}"]
    runner = "--runner=DirectRunner"
    with loaded_command("prepare") as prepare:
        assert in_process(prepare, *flags, "--beam_pipeline_options=direct_num_workers=1") == 1
        assert "error: --beam_pipeline_options needs --runner" in capsys.readouterr().err
        shard = [word for word in flags if "shards" not in word]
        assert in_process(prepare, *shard, runner, "--shard=0/2") == 1
        assert "--runner processes all shards: remove --shard" in capsys.readouterr().err
        code = in_process(prepare, *flags, runner, "--beam_pipeline_options=direct_num_workers=1")
    printed = capsys.readouterr()
    if importlib.util.find_spec("apache_beam") is None:
        assert code == 1
        assert "--runner needs apache_beam: pip install 'ssd-keras[beam]'" in printed.err
        assert not out.exists()
    else:
        assert code == 0
        assert "2 of 2 shards, 0 dead letters\n" in printed.out
        assert json.loads((out / "card.json").read_text())["num_images"] == 2
