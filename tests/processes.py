"""Commands and programs that run in processes of their own.

A process imports TensorFlow and Keras for several seconds. Here a server process imports them
once, and each new process is a fork of it. The server has created no tensor and has not imported
`ssd_keras`, so that a new process knows nothing of the test that starts it.
`subprocess` is for the tests of the start itself: what it prints, what it imports.
"""

import multiprocessing
import os
import pathlib
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
import weakref

ROOT = pathlib.Path(__file__).parents[1]  # not from `cli`, which imports the package

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tensorflow", "keras"])


class Program:
    """A running process, with the methods and attributes of `subprocess.Popen` that tests use.

    Args:
        code: Python code to run; None runs the command `ssd-keras`.
        arguments: The command line, without the name of the program.
        cwd: The working directory.
        env: Environment variables to change.
        stdin: Bytes to read from stdin.
        limit: The largest file that the process may write, in bytes.
    """

    def __init__(self, code, arguments, cwd=ROOT, env=None, stdin=b"", limit=None):
        folder = pathlib.Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._streams = [folder / name for name in ("stdin", "stdout", "stderr")]
        self._streams[0].write_bytes(stdin)
        for path in self._streams[1:]:
            path.touch()
        arguments = list(map(os.fspath, arguments))
        work = (code, arguments, os.fspath(cwd), env or {}, self._streams, limit)
        self._process = SERVER.Process(target=_work, args=work)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self._process.kill()

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """Waits for the end; returns stdout and stderr as text."""
        self.wait(timeout)
        return self.output()

    def output(self):
        """What stdout and stderr hold so far."""
        return tuple(p.read_text(errors="backslashreplace") for p in self._streams[1:])


def ssd_keras(*arguments, **options):
    """`ssd-keras ARGUMENTS`, finished; stdout and stderr are text."""
    return _finished(Program(None, arguments, **options), arguments)


def python(code, *arguments, **options):
    """`python -c CODE ARGUMENTS`, finished; stdout and stderr are text."""
    return _finished(Program(code, arguments, **options), arguments)


def _finished(program, arguments):
    try:
        stdout, stderr = program.communicate(timeout=300)
    finally:
        program.kill()
    return subprocess.CompletedProcess(arguments, program.returncode, stdout, stderr)


def _work(code, arguments, cwd, env, streams, limit):
    """Runs in the new process."""
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    os.environ.update(env)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    if code is None:
        sys.argv = ["ssd-keras", *arguments]
        runpy.run_module("ssd_keras", run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments]
        exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
