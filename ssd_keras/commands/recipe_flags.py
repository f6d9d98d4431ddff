"""Defines one flag for every field of a recipe; the help texts come from its docstring."""

import dataclasses
import re
import textwrap
from typing import Any

from absl import flags


def define_flags(recipe: type, names: dict[str, tuple[str, ...]]) -> None:
    """Defines a flag for each field of a dataclass, with the field's default.

    Args:
        recipe: The dataclass. Its docstring must describe each field under "Attributes:".
        names: Field name -> allowed values, for the fields that accept a fixed set of values.
    """
    helps = field_help(recipe)
    for field in dataclasses.fields(recipe):
        name, text, kind = field.name, helps[field.name], str(field.type)
        default: Any = field.default
        if name in names:
            flags.DEFINE_enum(name, default, names[name], text)
        elif kind.startswith("tuple"):
            flags.DEFINE_list(name, [str(value) for value in default], text)
        elif field.type is bool:
            flags.DEFINE_bool(name, default, text)
        elif field.type is float:
            flags.DEFINE_float(name, default, text)
        elif field.type is str:
            flags.DEFINE_string(name, default, text)
        else:
            flags.DEFINE_integer(name, default, text)


def from_flags(recipe: type) -> Any:
    """Creates the dataclass from the values of its flags.

    Args:
        recipe: The dataclass that was given to `define_flags`.

    Returns:
        An instance of `recipe`.

    Raises:
        ValueError: If a list of integers holds anything else, or the dataclass rejects a value.
    """
    values = {}
    for field in dataclasses.fields(recipe):
        value = flags.FLAGS[field.name].value
        if str(field.type).startswith("tuple"):
            value = tuple(value or ())
            if "int" in str(field.type):
                if not all(word.isdecimal() for word in value):
                    raise ValueError(f"--{field.name} (={','.join(value)}) must be integers")
                value = tuple(map(int, value))
        values[field.name] = value
    return recipe(**values)


def field_help(recipe: type) -> dict[str, str]:
    """Reads the field descriptions from the docstring of a dataclass.

    Args:
        recipe: The dataclass. Its docstring must describe each field under "Attributes:".

    Returns:
        Field name -> description, on one line.
    """
    attributes = textwrap.dedent((recipe.__doc__ or "").partition("Attributes:\n")[2])
    entries = re.split(r"^(\w+): ", attributes, flags=re.MULTILINE)[1:]
    pairs = zip(entries[::2], entries[1::2], strict=True)
    return {name: " ".join(text.split()) for name, text in pairs}
