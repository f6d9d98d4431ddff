"""One flag for every field of a recipe, with the help of its docstring."""

import dataclasses
import re
import textwrap
from typing import Any

from absl import flags


def define_flags(recipe: type, names: dict[str, tuple[str, ...]]) -> None:
    """Defines a flag for each field of a dataclass; the fields' defaults are the flags'.

    Args:
        recipe: The dataclass; its docstring describes each field under "Attributes:".
        names: The names that a field may have, for fields with a fixed set of them.
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
    """The dataclass with the values of the flags.

    Raises:
        ValueError: If a list of numbers holds another word, or a value breaks a rule of the
            dataclass.
    """
    values = {}
    for field in dataclasses.fields(recipe):
        value = flags.FLAGS[field.name].value
        if str(field.type).startswith("tuple"):
            value = tuple(value or ())
            if "int" in str(field.type):
                if not all(word.isdecimal() for word in value):
                    raise ValueError(f"--{field.name} (={','.join(value)}) must be whole numbers")
                value = tuple(map(int, value))
        values[field.name] = value
    return recipe(**values)


def field_help(recipe: type) -> dict[str, str]:
    """Field -> its description in the docstring's "Attributes:"."""
    attributes = textwrap.dedent((recipe.__doc__ or "").partition("Attributes:\n")[2])
    entries = re.split(r"^(\w+): ", attributes, flags=re.MULTILINE)[1:]
    pairs = zip(entries[::2], entries[1::2], strict=True)
    return {name: " ".join(text.split()) for name, text in pairs}
