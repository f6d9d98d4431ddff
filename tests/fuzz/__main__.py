"""Runs the fuzzer; see the package. Prints a table, and the command to repeat each failure."""

import argparse
import collections
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

SECONDS, MEGABYTES = 10, 400  # limits of a case
ALL_MEGABYTES = 40_000  # address space of a child
BATCH = 200  # cases of each target in a child


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="cases of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default="", help="names separated by commas; default: all")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no child after this time")
    parser.add_argument("--child", action="store_true", help="run in this process")
    options = parser.parse_args()
    if options.child:
        return child(options)
    targets = options.targets or "all"
    counts, failures, start = collections.Counter(), [], time.monotonic()
    for first in range(options.first, options.first + options.cases, BATCH):
        if time.monotonic() - start > options.seconds:
            break
        size = min(BATCH, options.first + options.cases - first)
        batch(targets, options.seed, first, size, counts, failures)
    for name in sorted({name for name, _ in counts}):
        row = {outcome: count for (target, outcome), count in counts.items() if target == name}
        print(
            f"{name:22}", ", ".join(f"{count} {outcome}" for outcome, count in sorted(row.items()))
        )
    for target, case, message in failures:
        command = f"python -m tests.fuzz --seed={options.seed} --targets={target}"
        print(f"FAILURE: {command} --first={case} --cases=1: {message[:600]}")
    total = sum(counts.values())
    print(f"{total} cases, {len(failures)} failures, {time.monotonic() - start:.0f} s")
    return 1 if failures else 0


def batch(targets, seed, first, size, counts, failures):
    """Runs cases in child processes. If a child dies, another one continues after the last case."""
    command = [sys.executable, "-m", "tests.fuzz", "--child", f"--seed={seed}"]
    skipped = []
    while True:
        more = [f"--targets={targets}", f"--first={first}", f"--cases={size}", *skipped]
        done = subprocess.run(
            [*command, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        for target, case, outcome, message in lines:
            if outcome in ("accepted", "refused", "FAILED"):
                counts[target, outcome] += 1
            if outcome == "FAILED":
                failures.append((target, case, message))
        if done.returncode == 0 or not lines:
            if done.returncode:
                failures.append((targets, first, f"the child ended with {done.returncode}"))
            return
        target, case, *_ = lines[-1]
        counts[target, "FAILED"] += 1
        failures.append((target, case, f"the process ended with {done.returncode}"))
        names = selected(targets)
        # The rest of the target, then the targets after it.
        batch(target, seed, case + 1, first + size - case - 1, counts, failures)
        targets = ",".join(names[names.index(target) + 1 :])
        if not targets:
            return


def selected(targets):
    from tests.fuzz.targets import TARGETS

    return list(TARGETS) if targets == "all" else targets.split(",")


def child(options):
    """Runs cases in this process; prints a JSON line before each case and one with its outcome."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import absl.logging

    from ssd_keras.commands.common import USER_ERRORS
    from tests.fuzz.targets import TARGETS

    absl.logging.set_verbosity("error")
    resource.setrlimit(resource.RLIMIT_AS, (ALL_MEGABYTES << 20, ALL_MEGABYTES << 20))
    signal.signal(signal.SIGALRM, too_slow)
    for target in selected(options.targets):
        with tempfile.TemporaryDirectory() as folder:
            case, names = TARGETS[target](Path(folder))
            warm = False
            for number in range(options.first, options.first + options.cases):
                print(json.dumps([target, number, "started", ""]), flush=True)
                rng = np.random.default_rng((options.seed, zlib.crc32(target.encode()), number))
                before = peak()
                signal.alarm(SECONDS if warm else 10 * SECONDS)  # the first case builds graphs
                outcome, message = run(case, rng, names, USER_ERRORS)
                signal.alarm(0)
                if warm and peak() - before > MEGABYTES:
                    outcome, message = "FAILED", f"{peak() - before:.0f} MB; {message}"
                warm = True
                print(json.dumps([target, number, outcome, message]), flush=True)
    return 0


class TooSlowError(BaseException):
    """A case exceeded its time limit. The class is chosen so that no reader catches it."""


def too_slow(*_):
    raise TooSlowError


def run(case, rng, names, user_errors):
    """Returns the outcome of a case, and the message of its exception."""
    try:
        case(rng)
    except user_errors as error:
        message = str(error)
        if names and not any(name in message for name in names):
            return "FAILED", f"names no file: {type(error).__name__}: {message}"
        if len(message.splitlines()) > 1:
            return "FAILED", f"several lines: {message}"
        return "refused", message
    except BaseException as error:
        return "FAILED", f"{type(error).__name__}: {error}"
    return "accepted", ""


def peak():
    """Returns the peak memory of this process, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
