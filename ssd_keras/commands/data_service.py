"""Runs a dispatcher or a worker of a tf.data service, for `ssd-keras train --service`.

    ssd-keras data-service --role=dispatcher --port=5050 --work_dir=/var/tmp/dispatcher
    ssd-keras data-service --role=worker --dispatcher=host1:5050

Start one dispatcher and any number of workers; every worker must see the record sets under the same
paths as the training. They run until Ctrl-C or SIGTERM.
"""

import signal
import threading

import tensorflow as tf
from absl import flags

_ROLE = flags.DEFINE_enum("role", None, ["dispatcher", "worker"], "What to run.", required=True)
_PORT = flags.DEFINE_integer("port", 0, "Port to listen on; 0: any free one.", lower_bound=0)
_DISPATCHER = flags.DEFINE_string(
    "dispatcher", None, "Address host:port of the dispatcher (worker)."
)
_HOST = flags.DEFINE_string(
    "host", "localhost", "Name by which the training reaches this machine (worker)."
)
_WORK_DIR = flags.DEFINE_string(
    "work_dir", None, "Folder for the dispatcher's state: it resumes from it when started again."
)


def interrupted() -> str:
    """The line after Ctrl-C."""
    return "the server has stopped"


def main(words: list[str]) -> None:
    """Serves until a signal comes."""
    del words
    service = tf.data.experimental.service
    if _ROLE.value == "dispatcher":
        config = service.DispatcherConfig(
            port=_PORT.value,
            work_dir=_WORK_DIR.value,
            fault_tolerant_mode=_WORK_DIR.value is not None,
        )
        server = service.DispatchServer(config)
        address = server.target
    else:
        if not _DISPATCHER.value:
            raise ValueError("--dispatcher is missing: a worker needs its address, host:port")
        server = _worker()
        address = f"{_HOST.value}, working for {_DISPATCHER.value}"
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(f"{_ROLE.value} at {address}", flush=True)
    while not stop.wait(1.0):  # Ctrl-C cannot end a wait without a time limit everywhere
        pass
    del server


def _worker() -> tf.data.experimental.service.WorkerServer:
    """A worker at a port that it announces as part of its address."""
    import socket

    port = _PORT.value
    if not port:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
    return tf.data.experimental.service.WorkerServer(
        tf.data.experimental.service.WorkerConfig(
            dispatcher_address=_DISPATCHER.value,
            worker_address=f"{_HOST.value}:{port}",
            port=port,
        )
    )
