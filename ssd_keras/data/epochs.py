"""The order of records: epochs that depend only on the seed, and the image ids of any batch."""

import os
from collections.abc import Sequence

import tensorflow as tf

from ssd_keras.data.card import DataCard, read_card
from ssd_keras.data.record_checks import checked_records
from ssd_keras.data.records import parse_example, shard_paths

# One record set, or several to join.
Records = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
SHUFFLE_BUFFER = 4096  # encoded records; about 400 MB for VOC
_READERS = 16  # shards that are read in parallel

# The functions of the pipeline have no Python statement that depends on a tensor. AutoGraph would
# take five seconds to rewrite them and all that they call.
as_graph = tf.autograph.experimental.do_not_convert


def batch_image_ids(
    records: Records,
    batch_size: int,
    seed: int,
    step: int,
    *,
    shuffle_buffer: int = SHUFFLE_BUFFER,
) -> list[str]:
    """Returns the ids of the images in one batch of `train_dataset(..., repeat=True)`.

    No image is decoded.

    Args:
        records: As in `train_dataset`.
        batch_size: B, as in `train_dataset`.
        seed: As in `train_dataset`.
        step: Index of the batch, from 0.
        shuffle_buffer: As in `train_dataset`.

    Returns:
        B image ids, in the order of the batch.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ValueError: If the record sets have different class names.
    """
    directories = directories_of(records)
    cards = read_cards(directories)
    dataset = endless_records(directories, cards, seed, shuffle_buffer, step * batch_size)
    dataset = dataset.take(batch_size).map(as_graph(lambda r, _: parse_example(r)["image_id"]))
    return [image_id.decode() for image_id in dataset.as_numpy_iterator()]


def epoch_records(
    directories: Sequence[str],
    cards: Sequence[DataCard],
    seed: int,
    epoch: tf.Tensor,
    shuffle_buffer: int,
) -> tf.data.Dataset:
    """Creates a dataset of the records of one epoch, in an order that depends on (seed, epoch).

    Several sets are mixed in random order, in proportion to their sizes.

    Args:
        directories: Directories of the record sets.
        cards: Their data cards.
        seed: Seed of the run.
        epoch: int64 scalar, index of the epoch.
        shuffle_buffer: Number of records held for shuffling.

    Returns:
        A `tf.data.Dataset` of (record, position). A record is a string scalar, a serialized
        example. A position is int64 `[2]`, epoch and index in the epoch.
    """
    classes = len(cards[0].labels)  # joined sets have equal labels
    sets = [_interleaved_shards(shard_paths(path), classes, seed, epoch) for path in directories]
    dataset = sets[0]
    if len(sets) > 1:
        counts = [card.num_images for card in cards]
        turns = tf.repeat(tf.range(len(sets), dtype=tf.int64), counts)
        turns = tf.random.experimental.stateless_shuffle(turns, [seed, epoch])
        dataset = tf.data.Dataset.choose_from_datasets(
            sets, tf.data.Dataset.from_tensor_slices(turns)
        )
    order = tf.random.stateless_uniform([], [seed, epoch], None, None, tf.int64)
    # `shuffle` combines its seed with the global seed. A constant global seed makes the order
    # independent of the global seed of the program. It must not be 0, because `shuffle` fails with
    # a global seed of 0 and a tensor as its own seed. Inside a function of `tf.data`, `set_seed`
    # changes the seed of that function's graph only.
    tf.random.set_seed(1)
    # `shuffle` allocates the whole buffer at once, even if there are fewer records.
    buffer = min(shuffle_buffer, sum(card.num_images for card in cards))
    dataset = dataset.shuffle(buffer, seed=order, reshuffle_each_iteration=False)
    return dataset.enumerate().map(
        as_graph(lambda index, record: (record, tf.stack([epoch, index])))
    )


def _interleaved_shards(
    paths: list[str], classes: int, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """Interleaves the shards of one record set, in an order that depends on (seed, epoch)."""
    shuffled = tf.random.experimental.stateless_shuffle(paths, [seed, epoch])
    return tf.data.Dataset.from_tensor_slices(shuffled).interleave(
        as_graph(lambda path: checked_records(path, classes)),
        cycle_length=min(_READERS, len(paths)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def endless_records(
    directories: Sequence[str],
    cards: Sequence[DataCard],
    seed: int,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    skipped: int = 0,
) -> tf.data.Dataset:
    """Creates an endless dataset: the elements of `epoch_records`, one epoch after another.

    Args:
        directories: Directories of the record sets.
        cards: Their data cards.
        seed: Seed of the run.
        shuffle_buffer: Number of records held for shuffling.
        skipped: Number of elements to skip at the start.

    Returns:
        A `tf.data.Dataset` of (record, position), as `epoch_records` returns it.
    """
    num_images = sum(card.num_images for card in cards)
    epochs = tf.data.Dataset.range(skipped // num_images, tf.int64.max)
    dataset = epochs.flat_map(
        as_graph(lambda epoch: epoch_records(directories, cards, seed, epoch, shuffle_buffer))
    )
    return dataset.skip(skipped % num_images)


def next_epoch(first: int) -> tf.data.Dataset:
    """Creates a dataset of one element, the index of the epoch.

    The first iteration over the dataset gives `first`, the second one `first` + 1, and so on.

    Args:
        first: Index of the first epoch.

    Returns:
        A `tf.data.Dataset` of int64 scalars.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        epoch = tf.Variable(first - 1, trainable=False, dtype=tf.int64)
    return tf.data.Dataset.from_tensors(0).map(as_graph(lambda _: epoch.assign_add(1)))


def directories_of(records: Records) -> list[str]:
    """Returns the directories of one or several record sets as a list.

    Raises:
        ValueError: If there are no record sets.
    """
    sequence = [records] if isinstance(records, (str, os.PathLike)) else records
    directories = [os.fspath(directory) for directory in sequence]
    if not directories:
        raise ValueError("records (=[]) must name at least one record set")
    return directories


def paths_of(directories: list[str]) -> list[str]:
    """Returns the paths of the shards of all record sets, in stored order."""
    return [path for directory in directories for path in shard_paths(directory)]


def read_cards(directories: list[str]) -> list[DataCard]:
    """Reads the data cards of record sets that are joined.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ValueError: If the class names of the sets differ, or a card or shard is damaged.
    """
    cards = [read_card(directory) for directory in directories]
    for directory, card in zip(directories, cards, strict=True):
        if card.labels != cards[0].labels:
            raise ValueError(
                f"record set {directory} has the class names {card.labels}, but {directories[0]} "
                f"has {cards[0].labels}: joined sets must have the same names in the same order"
            )
    return cards
