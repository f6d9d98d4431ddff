"""Optional dependencies: an error that names the extra to install."""

import importlib.util


def require(module: str, extra: str, purpose: str) -> None:
    """Checks that an optional dependency is installed.

    Args:
        module: Name of its module.
        extra: The extra of this package that installs it.
        purpose: What needs it, as the subject of a sentence.

    Raises:
        ImportError: If it is missing.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{purpose} needs {module}: pip install 'ssd-keras[{extra}]'")
