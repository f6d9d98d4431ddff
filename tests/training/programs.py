"""Runs trainings as child processes, with two logical devices or as two workers."""

import json
import pathlib
import socket
import subprocess

from ssd_keras.config_files import write_config
from tests.processes import Program
from tests.tiny import TINY

# Logical devices must be set before TensorFlow starts. Networks for 64 pixels are fast.
PROGRAM = """
import sys
import keras, numpy as np, tensorflow as tf
devices = int(sys.argv.pop(1))
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from ssd_keras.commands import common, train
common.run(train, "train", sys.argv[1:])
"""
FLAGS = (
    "--weights=random",
    "--width=0.0625",
    "--batch_size=4",
    "--augmentation=ssd",
    "--optimizer=sgd",
    "--clip_norm=0",
    "--warmup=0",
)


def start(run_dir, records, *arguments, devices=1, env=None):
    """A training process."""
    config = pathlib.Path(records).parent / "tiny.json"
    write_config(TINY, config)
    files = (f"--run_dir={run_dir}", f"--records={records}", f"--config={config}")
    return Program(PROGRAM, [str(devices), *files, *FLAGS, *arguments], env=env)


def finish(process, code=0, timeout=300):
    """Waits until a process ends, checks its exit code, and returns its stdout and stderr."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(
            f"still running after {timeout} s: {out[-2000:]} {err[-2000:]}"
        ) from None
    assert process.returncode == code, (process.returncode, out[-2000:], err[-4000:])
    return out, err


def end(process):
    """Kills a process if it still runs, and closes its pipes."""
    process.kill()
    process.communicate()


def cluster(count):
    """Returns the environment variables of each of `count` workers on this machine."""
    ports = []
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("localhost", 0))
        ports.append(probe.getsockname()[1])
    for probe in probes:
        probe.close()
    workers = [f"localhost:{port}" for port in ports]
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            )
        }
        for index in range(count)
    ]
