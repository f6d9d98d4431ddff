"""Shards: the n parts of many images, so that jobs can run side by side and again.

The shard of an image is a hash of its name, so all jobs agree without talking to each other.
"""

import hashlib
import re

from ssd_keras.files import readable


def parse_shard(text: str) -> tuple[int, int]:
    """Parses "3/16", the shard 3 of 16; the first is 0.

    Raises:
        ValueError: If the text has another form, or the number is not below that of all shards.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"shard (={text!r}) must be k/n with k from 0 to n - 1, such as 0/16")
    return int(match[1]), int(match[2])


def shard_of(name: str, count: int) -> int:
    """Returns the shard of an image: the SHA-256 of its name, modulo the number of shards."""
    digest = hashlib.sha256(readable(name).encode()).digest()
    return int.from_bytes(digest, "big") % count
