"""Runs shards over Apache Beam: in one process, in several, or on many machines.

Beam divides the shards among its workers. A worker process calls `start` once, which loads a model
or opens a dataset, and then processes one shard after another. A shard writes its own files under
temporary names, so that a pipeline that was killed can be run again, and no shard waits for others.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

DONE, DEAD = "done", "dead"

# Processes one shard: yields (DONE, text) once and (DEAD, letter) for each item left out.
Process = Callable[[Any], Iterable[tuple[str, Any]]]


class Shards(beam.PTransform):
    """Processes shards: a transform with two outputs.

    Apply it to a collection with one element for each shard. The outputs are `done`, a line of text
    for each shard, and `dead`, a dictionary for each item that was left out.

    Args:
        start: Function that returns the function that processes a shard. It is called once in each
            worker process. It must be picklable.
    """

    def __init__(self, start: Callable[[], Process]) -> None:
        super().__init__()
        self._start = start

    def expand(self, shards: beam.PCollection) -> Any:  # Beam takes another hint as element types
        """Adds the steps to a pipeline."""
        run = beam.ParDo(_Run(self._start)).with_outputs(DEAD, main=DONE)
        return shards | beam.Reshuffle() | run


class _Run(beam.DoFn):
    """Processes the shards of a worker process."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self._start = start
        self._shared = Shared()

    def setup(self) -> None:
        # The threads of a process share what `start` returns.
        self._process = self._shared.acquire(functools.partial(_Holder, self._start)).process

    def process(self, shard: Any) -> Iterator[Any]:
        for tag, value in self._process(shard):
            beam.metrics.Metrics.counter("ssd_keras", tag).inc()
            yield value if tag == DONE else beam.pvalue.TaggedOutput(tag, value)


class _Holder:
    """An object that `Shared` can refer to; it cannot refer to functions."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self.process = start()


def run_over_beam(
    start: Callable[[], Process], shards: Sequence[Any], runner: str, options: Sequence[str]
) -> tuple[int, int]:
    """Processes shards with a runner of Apache Beam, and waits for the end.

    Args:
        start: See `Shards`.
        shards: One element for each shard.
        runner: Name of a runner, such as "DirectRunner".
        options: Options of the pipeline, such as "direct_num_workers=2".

    Returns:
        Numbers of shards and of dead letters. Both are -1 if the runner does not count.

    Raises:
        Exception: Of any kind, if a shard failed.
    """
    arguments = [f"--runner={runner}", *(f"--{option.lstrip('-')}" for option in options)]
    pipeline = beam.Pipeline(options=PipelineOptions(arguments))
    pipeline | beam.Create(list(shards)) | Shards(start)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace("ssd_keras"))
    found = {item.key.metric.name: item.committed for item in counters["counters"]}
    return found.get(DONE, -1), found.get(DEAD, 0 if DONE in found else -1)
