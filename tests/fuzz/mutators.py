"""Damages files: bytes, text, JSON values and XML."""

import copy
import json
import re

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
ODD_VALUES = (
    *(None, True, 0, -1, 1, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, -1e308),
    *(float("nan"), float("inf"), "", "a", "\x00", "\ud800", "1", "nan", "../../x", "x" * 5000),
    *([], {}, [[]], [None], ["a", "a"], {"a": 1}, {"": {}}, [0] * 1000),
)


def damage_bytes(rng, data, head=0):
    """Changes a few bytes, or cuts, repeats, inserts or erases a part.

    Args:
        rng: The generator.
        data: The bytes.
        head: If above 0, half of the changes are among the first `head` bytes.
    """
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        size = min(head, len(data)) if head and rng.random() < 0.5 else len(data)
        at, length = int(rng.integers(size + 1)), int(rng.integers(1, 64))
        match rng.integers(8):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = rng.bytes(length)
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                data[at : at + 4] = int(rng.choice(INTERESTING)).to_bytes(1) * 4
            case _ if at < len(data):
                data[at] = int(rng.integers(256))
    return bytes(data)


def damage_json(rng, value):
    """Replaces, removes or repeats values of a JSON document; returns bytes."""
    if rng.random() < 0.15:
        return damage_bytes(rng, json.dumps(value).encode())
    if rng.random() < 0.02:
        return b"[" * 100_000 if rng.random() < 0.5 else b'{"a":' * 100_000
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(value))
        if not places:
            break
        holder, key = places[rng.integers(len(places))]
        match rng.integers(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case _:
                holder[key] = copy.deepcopy(ODD_VALUES[rng.integers(len(ODD_VALUES))])
    text = json.dumps(value if rng.random() > 0.01 else ODD_VALUES[rng.integers(len(ODD_VALUES))])
    return text.encode()


def _places(value):
    """Every (container, key) of a JSON document."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def damage_text(rng, text):
    """Replaces words of a text by unusual values, or damages its bytes."""
    if rng.random() < 0.3:
        return damage_bytes(rng, text.encode())
    words = re.split(r"([<>\s,:/=]+)", text)
    for _ in range(rng.integers(1, 4)):
        at = rng.integers(len(words))
        odd = ODD_VALUES[rng.integers(len(ODD_VALUES))]
        words[at] = rng.choice(["", "\n", "\t", "&x;", "<", "- [", "{", "%", words[0]]).item()
        if rng.random() < 0.7:
            words[at] = odd if isinstance(odd, str) else json.dumps(odd)
    if rng.random() < 0.02:
        words = ["<a>" * 50_000, *words]
    return "".join(words).encode(errors="surrogatepass")
