"""Defines one flag for every field of a recipe; the help texts come from its docstring."""

import dataclasses
import re
import textwrap
from typing import Any

from absl import flags


def define_flags(recipe: type, names: dict[str, tuple[str, ...]]) -> None:
    """Defines a flag for each field of a dataclass. The default of every flag is None.

    Args:
        recipe: The dataclass. Its docstring must describe each field under "Attributes:".
        names: Field name -> allowed values, for the fields that accept a fixed set of values.
    """
    helps = field_help(recipe)
    for field in dataclasses.fields(recipe):
        name, text, kind = field.name, helps[field.name], str(field.type)
        if name in names:
            flags.DEFINE_enum(name, None, names[name], text)
        elif kind.startswith("tuple"):
            flags.DEFINE_list(name, None, text)
        elif field.type is bool:
            flags.DEFINE_bool(name, None, text)
        elif field.type is float:
            flags.DEFINE_float(name, None, text)
        elif field.type is str:
            flags.DEFINE_string(name, None, text)
        else:
            flags.DEFINE_integer(name, None, text)


def from_flags(recipe: Any) -> Any:
    """Replaces the fields of a recipe whose flags are given.

    Args:
        recipe: An instance of the dataclass that was given to `define_flags`.

    Returns:
        The recipe with the values of the flags.

    Raises:
        ValueError: If a list of integers has another value, both --iterations and --epochs are
            given, or the dataclass rejects a value.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):
        flag = flags.FLAGS[field.name]
        if flag.value is None:
            continue
        value = flag.value
        if str(field.type).startswith("tuple"):
            value = tuple(value)
            if "int" in str(field.type):
                if not all(word.isdecimal() for word in value):
                    raise ValueError(f"--{field.name} (={','.join(value)}) must be integers")
                value = tuple(map(int, value))
        values[field.name] = value
    if "iterations" in values and "epochs" in values:
        raise ValueError(
            f"--iterations (={values['iterations']}) and --epochs (={values['epochs']:g}) both set "
            "the length of the run: give one of them"
        )
    if "iterations" in values:
        values["epochs"] = 0.0
    return dataclasses.replace(recipe, **values)


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
