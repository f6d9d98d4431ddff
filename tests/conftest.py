import os
import signal

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A shell starts background jobs with SIGINT ignored, and child processes inherit this setting. The
# tests that interrupt a command need the default handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files and folders whose tests build a network or install the package; `make quick` leaves them
# out. A folder stands for all files below it.
WITH_MODEL = (
    "export",
    "inference",
    "training",
    "evaluation/test_evaluate.py",
    "evaluation/test_verification.py",
    "weights/test_conversion.py",
    "weights/test_import_weights.py",
    "weights/test_load.py",
    "weights/test_tiling_and_classes.py",
    "test_initialization.py",
    "test_model.py",
    "test_own_data_guide.py",
    "test_own_sizes.py",
    "test_truth.py",
    "test_saved_files.py",
    "test_wheel.py",
)

# Files that take longest. They start first, so that at the end no process runs one of them alone.
LONGEST = ("training/test_devices.py", "test_wheel.py", "test_own_data_guide.py", "training")


def pytest_collection_modifyitems(items):
    here = os.path.dirname(__file__)

    def rank(item):
        path = os.path.relpath(item.path, here)
        return next((k for k, name in enumerate(LONGEST) if path.startswith(name)), len(LONGEST))

    items.sort(key=rank)
    for item in items:
        path = os.path.relpath(item.path, here)
        if any(path == name or path.startswith(f"{name}{os.sep}") for name in WITH_MODEL):
            item.add_marker(pytest.mark.model)
