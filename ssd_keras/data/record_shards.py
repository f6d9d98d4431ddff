"""Record sets that n jobs write, one shard each, and the merge of their cards.

The files of n jobs and a merge have the same bytes as those of one job. A job writes its shard
under a temporary name and renames it, then a card of the shard, such as `card-00003-of-00016.json`.
A shard that has a card is complete and is skipped.
"""

import copy
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ssd_keras.data.card import (
    CARD_NAME,
    DataCard,
    Notes,
    merge_cards,
    parse_card,
    read_card,
    write_card,
)
from ssd_keras.data.prepare import open_source
from ssd_keras.data.records import check_not_empty, shard_name, write_files
from ssd_keras.data.sources.source import Source
from ssd_keras.files import atomic
from ssd_keras.progress import progress_bar
from ssd_keras.shards import shard_of

_CARDS = "card-*-of-*.json"


def prepare_shard(
    source: Source, out: str | os.PathLike[str], index: int, count: int
) -> DataCard | None:
    """Writes one shard of a record set, and the card of this shard.

    Args:
        source: The dataset, the same in every job.
        out: Directory to write to; all jobs share it.
        index: k, the shard to write, from 0.
        count: n, the number of shards; the same in every job.

    Returns:
        The card of the shard, or None if the shard was complete before.

    Raises:
        ValueError: If `out` holds a record set or shards with another n, or the dataset cannot be
            written; see `write_records`.
    """
    out = pathlib.Path(out)
    path = out / shard_name(index, count)
    card_name = _card_name(index, count)
    if (out / CARD_NAME).exists() and path.name not in read_card(out).shards:
        raise ValueError(f"{out} already holds another record set: write to another directory")
    _check_counts(out, count)
    if (out / CARD_NAME).exists() or (out / card_name).exists():
        return None
    # Notes of the whole dataset belong to the first shard, so that the merge has them once.
    notes = copy.deepcopy(source.notes) if index == 0 else Notes()
    samples = source.read(lambda image_id: shard_of(image_id, count) == index, notes)
    with atomic(path) as temporary:
        card = write_files(
            progress_bar(round(source.num_images / count)).over(samples),
            [temporary],
            source.labels,
            source=source.description,
            category_ids=source.category_ids,
            notes=notes,
            names=[path.name],
        )
    write_card(card, out, card_name)
    for leftover in (*out.glob(f".*.{path.name}"), *out.glob(f".*.{card_name}")):  # killed jobs
        leftover.unlink(missing_ok=True)
    return card


def shard_writer(
    source: str, options: Mapping[str, Any], out: str | os.PathLike[str], count: int
) -> Callable[[int], Iterator[tuple[str, Any]]]:
    """Opens a dataset, and returns a function that writes one shard after another.

    The function takes the number of a shard. It yields ("done", text) once and ("dead", letter) for
    each item that was left out; see `ssd_keras.beam_shards`.

    Args:
        source: See `open_source`.
        options: The keyword arguments of `open_source`.
        out: See `prepare_shard`.
        count: See `prepare_shard`.
    """
    opened = open_source(source, **options)

    def process(index: int) -> Iterator[tuple[str, Any]]:
        card = prepare_shard(opened, out, index, count)
        part = pathlib.Path(out, _card_name(index, count))
        skipped = {} if not part.exists() else parse_card(part).skipped
        for reason, names in skipped.items():
            for name in names:
                yield "dead", {"item": name, "reason": reason}
        done = "exists: skipped" if card is None else f"{card.num_images} images"
        yield "done", f"{out}, shard {index} of {count}: {done}"

    return process


def merge_shards(directory: str | os.PathLike[str]) -> DataCard:
    """Completes a record set: writes its card from the cards of all shards, and removes these.

    A merge that was killed can be run again.

    Args:
        directory: The directory that all jobs wrote to.

    Returns:
        The card of the record set.

    Raises:
        FileNotFoundError: If the directory holds no shard, or a shard is missing.
        ValueError: If the shards are of different datasets, or hold no images.
    """
    directory = pathlib.Path(directory)
    paths = sorted(directory.glob(_CARDS))
    if not (directory / CARD_NAME).exists():
        if not paths:
            raise FileNotFoundError(
                f"{directory} holds no shards: write them with `ssd-keras prepare --shard=k/n`"
            )
        count = int(paths[0].stem.rpartition("-")[2])
        _check_counts(directory, count)
        missing = sorted(set(range(count)) - {int(path.name.split("-")[1]) for path in paths})
        if missing:
            raise FileNotFoundError(
                f"{directory} lacks {len(missing)} of {count} shards, first {missing[0]}: run "
                f"`ssd-keras prepare --shard={missing[0]}/{count}` with the options of the others"
            )
        cards = [parse_card(path) for path in paths]
        for path, card in zip(paths, cards, strict=True):
            for field in ("source", "labels", "category_ids"):
                if getattr(card, field) != getattr(cards[0], field):
                    raise ValueError(
                        f"{path} has another {field} than {paths[0].name}: remove it, and run this "
                        "shard with the options of the others"
                    )
        card = merge_cards(cards)
        check_not_empty(card, directory)
        write_card(card, directory)
    complete = read_card(directory)
    for path in paths:
        path.unlink()
    return complete


def _card_name(index: int, count: int) -> str:
    return f"card-{index:05d}-of-{count:05d}.json"


def _check_counts(directory: pathlib.Path, count: int) -> None:
    for path in directory.glob(_CARDS):
        if not path.name.endswith(f"-of-{count:05d}.json"):
            raise ValueError(
                f"{directory} holds {path.name}, a shard of another number than {count}: all jobs "
                "must have the same number; remove the others, or write to another directory"
            )
