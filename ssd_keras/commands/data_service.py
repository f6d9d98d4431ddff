"""Runs a dispatcher or a worker of a tf.data service, for `ssd-keras train --service`.

    ssd-keras data-service --role=dispatcher --port=5050 --work_dir=/var/tmp/dispatcher
    ssd-keras data-service --role=worker --dispatcher=host1:5050

Start one dispatcher and any number of workers. Every worker needs the record sets under the same
paths as the training. Dispatcher and workers run until Ctrl-C or SIGTERM.
"""

import signal
import threading

import tensorflow as tf
from absl import flags

_ROLE = flags.DEFINE_enum(
    "role", None, ["dispatcher", "worker"], "Type of the server.", required=True
)
_PORT = flags.DEFINE_integer("port", 0, "TCP port; 0 for any free port.", lower_bound=0)
_DISPATCHER = flags.DEFINE_string(
    "dispatcher", None, "Worker: address of the dispatcher, host:port."
)
_HOST = flags.DEFINE_string(
    "host", "localhost", "Worker: host name or IP address at which the training reaches it."
)
_WORK_DIR = flags.DEFINE_string(
    "work_dir", None, "Dispatcher: folder for its state, so that it resumes after a restart."
)


def interrupted() -> str:
    """Returns the message for Ctrl-C."""
    return "the server has stopped"


def main(words: list[str]) -> None:
    """Runs the server until Ctrl-C or SIGTERM."""
    del words
    unused = (_DISPATCHER, _HOST) if _ROLE.value == "dispatcher" else (_WORK_DIR,)
    for flag in unused:
        if flag.present:
            raise ValueError(f"--{flag.name} is not used by --role={_ROLE.value}: remove it")
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
            raise ValueError("--dispatcher is missing: give the address of the dispatcher")
        server = _worker()
        address = f"{_HOST.value}, working for {_DISPATCHER.value}"
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(f"{_ROLE.value} at {address}", flush=True)
    while not stop.wait(1.0):  # on some systems, Ctrl-C does not end a wait without a time limit
        pass
    del server


def _worker() -> tf.data.experimental.service.WorkerServer:
    """Creates a worker. Its address has a port number also if --port is 0."""
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
