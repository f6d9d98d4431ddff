"""A check of optional dependencies whose error names the extra to install."""

import importlib.util


class MissingExtraError(ImportError):
    """An optional dependency is missing; the message names the extra that installs it."""


def require(module: str, extra: str, purpose: str) -> None:
    """Checks that an optional dependency is installed.

    Args:
        module: Name of the module to import, such as "ai_edge_litert".
        extra: The extra of ssd-keras that installs the module, such as "tflite".
        purpose: The feature that needs the module; the error message starts with it.

    Raises:
        MissingExtraError: If the module is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{purpose} needs {module}: pip install 'ssd-keras[{extra}]'")
