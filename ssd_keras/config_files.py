"""Configs by name, and configs in files."""

import json
import os
from pathlib import Path

from ssd_keras.config import CONFIGS, SSDConfig
from ssd_keras.files import atomic, read_text

# A config, the name of one, or the path of a file of `write_config`.
ConfigLike = SSDConfig | str | os.PathLike[str]

# Help text of a --config flag.
CONFIG_HELP = f"Input size and tiling: {', '.join(CONFIGS)}, or a .json file (see fit-boxes)."


def as_config(config: ConfigLike) -> SSDConfig:
    """Returns a config that is given as an object, by name or as a file.

    Args:
        config: A config, a name such as "SSD300_VOC", or the path of a `.json` file.

    Raises:
        FileNotFoundError: If the file does not exist.
        TypeError: If `config` has another type.
        ValueError: If the name is unknown, or the file does not hold a valid config.
    """
    if isinstance(config, SSDConfig):
        return config
    if not isinstance(config, (str, os.PathLike)):
        raise TypeError(f"config (={config!r}) must be an SSDConfig, its name or a .json file")
    if config in CONFIGS:
        return CONFIGS[str(config)]
    path = Path(config).expanduser()
    if path.suffix != ".json":
        raise ValueError(
            f"config (={str(config)!r}) must be one of {', '.join(CONFIGS)}, or a .json file"
        )
    try:
        return SSDConfig.from_dict(json.loads(read_text(path)))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"config {path} is not valid: {error}") from error


def write_config(config: SSDConfig, path: str | os.PathLike[str]) -> None:
    """Writes a config to a `.json` file, which `config` arguments and the flag --config accept.

    Args:
        config: The config.
        path: The file. An existing file is replaced.

    Raises:
        ValueError: If `path` does not end in `.json`.
    """
    if Path(path).suffix != ".json":
        raise ValueError(f"path (={os.fspath(path)!r}) must end in .json")
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
