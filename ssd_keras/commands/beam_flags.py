"""Flags of the commands that can run over Apache Beam."""

from collections.abc import Callable, Iterable
from typing import Any

from absl import flags

from ssd_keras.extras import require


def define_beam_flags() -> None:
    """Defines --runner and --beam_pipeline_options."""
    flags.DEFINE_string(
        "runner",
        None,
        "Process all shards with this runner of Apache Beam, such as DirectRunner, FlinkRunner, "
        "SparkRunner or DataflowRunner. Needs the extra beam.",
    )
    flags.DEFINE_list(
        "beam_pipeline_options",
        [],
        "Options of Apache Beam, such as "
        "direct_num_workers=2,direct_running_mode=multi_processing.",
    )


def runs_over_beam() -> bool:
    """Whether --runner is given.

    Raises:
        ValueError: If options are given without a runner.
    """
    if flags.FLAGS.beam_pipeline_options and not flags.FLAGS.runner:
        raise ValueError("--beam_pipeline_options needs --runner, such as --runner=DirectRunner")
    return bool(flags.FLAGS.runner)


def run_all_shards(start: Callable[[], Any], shards: Iterable[Any]) -> str:
    """Processes shards with the runner of --runner; see `ssd_keras.beam_shards.Shards`.

    Returns:
        A line about what was done.

    Raises:
        ImportError: If Apache Beam is not installed.
        RuntimeError: If a shard failed.
    """
    require("apache_beam", "beam", "--runner")
    from ssd_keras.beam_shards import run_over_beam

    shards, runner = list(shards), flags.FLAGS.runner
    try:
        options = flags.FLAGS.beam_pipeline_options
        done, dead = run_over_beam(start, shards, runner, options)
    except Exception as error:  # runners raise many kinds, with the traceback of the worker
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise RuntimeError(
            f"{runner}: {lines[-1] if lines else type(error).__name__}: correct this and "
            "run the command again; what is complete is kept"
        ) from error
    if done < 0:
        return f"{len(shards)} shards"
    return f"{done} of {len(shards)} shards, {dead} dead letters"
