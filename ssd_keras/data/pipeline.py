"""Record sets -> batches for `model.fit`.

Images travel encoded until they are augmented. Every random choice is a function of the run's seed,
the epoch and the position in the epoch, so the same arguments give the same pixels whatever the
number of threads, and a resumed run sees what the uninterrupted one would have seen.
"""

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ssd_keras.augmentation.ops import AUGMENTATIONS, Op, augment
from ssd_keras.config import SSDConfig
from ssd_keras.data.card import DataCard, read_card
from ssd_keras.data.pipeline_checks import check_service, check_sizes, check_whole, padded_length
from ssd_keras.data.records import parse_example, shard_paths
from ssd_keras.images import warp

Records = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

SHUFFLE_BUFFER = 4096  # records, encoded: some 400 MB of VOC
_READERS = 16  # shards read in turns


def train_dataset(
    records: Records,
    config: SSDConfig,
    batch_size: int,
    *,
    augmentation: str = "ssd",
    seed: int = 0,
    repeat: bool = False,
    start_step: int = 0,
    max_boxes: int | None = None,
    use_difficult: bool = True,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    service: str | None = None,
    part: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Makes augmented training batches.

    Without `repeat` an iteration is one epoch (the incomplete last batch is dropped) and the next
    iteration is the next epoch: `model.fit(dataset, epochs=n)` trains on n different ones. With
    `repeat` it is one endless stream of epochs cut into batches, of which batch k is a function of
    (records, seed, batch_size, shuffle_buffer, k) only.

    Args:
        records: A record set's directory, or several to be joined; their labels must agree.
        config: The detector's configuration.
        batch_size: B.
        augmentation: A name in `augment.AUGMENTATIONS`.
        seed: Of the order and the augmentation.
        repeat: Go on after the last record.
        start_step: Begin at this batch, to go on with a training; those before are skipped
            undecoded. Without `repeat` it must be the first of an epoch.
        max_boxes: G, the padded number of objects; None takes the largest in the data cards, and
            warns if hardly an image needs it. A smaller one warns and says how many objects it
            can cut.
        use_difficult: Whether difficult objects are ground truth, as the original says for VOC. The
            crop samplers look at all objects.
        shuffle_buffer: Encoded records held for shuffling.
        service: Address of a `tf.data` service dispatcher ("grpc://host:port") whose workers, which
            must see the files under the same paths, do this work. Needs `repeat`. Workers share the
            epochs out, so the order of batches is no longer fixed. If a worker dies, the epoch it
            was at is lost from its last batch on, and batches keep coming from the others; if none
            is left the training waits until one is started again.
        part: Index and number of the parts that each batch is cut into, for several machines: only
            the rows of this part are decoded and augmented. Needs `repeat`.

    Returns:
        Dataset of (image float32 [B, S, S, 3] RGB 0..255, ground truth float32 [B, G, 5] of yxyx
        and label; rows of padding are 0). With `part` the batches have B / (number of parts) rows.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ConnectionError: If nothing answers at `service`.
        ValueError: If an argument, or the labels of the record sets, break a rule.
    """
    numbers = {"batch_size": batch_size, "seed": seed, "start_step": start_step}
    check_whole(**numbers, max_boxes=max_boxes or 0, shuffle_buffer=shuffle_buffer)
    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation (={augmentation!r}) must be one of {', '.join(AUGMENTATIONS)}"
        )
    if not repeat and service:
        raise ValueError(
            f"service (={service}) needs repeat=True: without it an iteration is one whole epoch"
        )
    if start_step < 0:
        raise ValueError(f"start_step (={start_step}) must not be negative")
    index, parts = part
    if not 0 <= index < parts or batch_size % parts or (parts > 1 and not repeat):
        raise ValueError(
            f"part (={part}) must be (index, number), the number a divisor of batch_size "
            f"(={batch_size}), and 1 without repeat"
        )
    if service:
        check_service(service)
    directories = _directories(records)
    cards = _read_cards(directories)
    num_images = sum(card.num_images for card in cards)
    check_sizes(_paths(directories), num_images, batch_size, shuffle_buffer, repeat)
    length = padded_length(cards, max_boxes)
    ops = AUGMENTATIONS[augmentation]

    def make_sample(serialized: Any, position: Any) -> tuple[Any, Any]:
        sample = training_sample(serialized, position, config, seed, ops)
        return sample["image"], _ground_truth(sample, length, use_difficult)

    if repeat:
        dataset = endless_records(directories, cards, seed, shuffle_buffer, start_step * batch_size)
        batches = tf.data.INFINITE_CARDINALITY
        if parts > 1:
            rows = batch_size // parts

            def in_part(_: Any, position: Any) -> Any:
                return (position[0] * num_images + position[1]) % batch_size // rows == index

            dataset = dataset.filter(in_part)
    else:
        batches = num_images // batch_size
        if start_step % batches:
            raise ValueError(
                f"start_step (={start_step}) must be a multiple of the {batches} batches of an "
                "epoch without repeat"
            )
        dataset = _next_epoch(start_step // batches).flat_map(
            lambda epoch: epoch_records(directories, cards, seed, epoch, shuffle_buffer)
        )
    dataset = dataset.map(make_sample, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size // parts, drop_remainder=True)
    if service:
        policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        dataset = dataset.apply(tf.data.experimental.service.distribute(policy, service))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    return dataset.prefetch(tf.data.AUTOTUNE)


def eval_dataset(
    records: Records, config: SSDConfig, batch_size: int, *, use_difficult: bool = True
) -> tf.data.Dataset:
    """Makes evaluation batches: every image once, in stored order, warped without augmentation.

    Args:
        records: A record set's directory, or several to be joined; their labels must agree.
        config: The detector's configuration.
        batch_size: B; the last batch may be smaller.
        use_difficult: As of `train_dataset`; give both the same, or `val_loss` is of other targets
            than `loss`. Average precision does not come from here.

    Returns:
        Dataset of the same elements as `train_dataset`.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ValueError: If the labels of the record sets differ, or `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size (={batch_size}) must be at least 1")
    directories = _directories(records)
    cards = _read_cards(directories)
    length = padded_length(cards, None)
    batches = -(-sum(card.num_images for card in cards) // batch_size)

    def make_sample(serialized: Any) -> tuple[Any, Any]:
        sample = parse_example(serialized)
        truth = _ground_truth(sample, length, use_difficult)
        return warp(sample["image"], config.image_size), truth

    dataset = tf.data.TFRecordDataset(_paths(directories))
    dataset = dataset.map(make_sample, num_parallel_calls=tf.data.AUTOTUNE)
    # Told how many there are, Keras does not try for one more.
    dataset = dataset.batch(batch_size).apply(tf.data.experimental.assert_cardinality(batches))
    return dataset.prefetch(tf.data.AUTOTUNE)


def batch_image_ids(
    records: Records,
    batch_size: int,
    seed: int,
    step: int,
    *,
    shuffle_buffer: int = SHUFFLE_BUFFER,
) -> list[str]:
    """Names the images in batch `step` of `train_dataset(..., repeat=True)`, decoding none."""
    directories = _directories(records)
    cards = _read_cards(directories)
    dataset = endless_records(directories, cards, seed, shuffle_buffer, step * batch_size)
    dataset = dataset.take(batch_size).map(lambda record, _: parse_example(record)["image_id"])
    return [image_id.decode() for image_id in dataset.as_numpy_iterator()]


def training_sample(
    serialized: Any, position: Any, config: SSDConfig, seed: int, ops: tuple[Op, ...]
) -> dict[str, Any]:
    """What `augment` makes of an element of `epoch_records`; seeded by (seed, epoch, index)."""
    both = tf.random.experimental.stateless_fold_in([seed, position[0]], position[1])
    return augment(parse_example(serialized), config, both, ops)


def epoch_records(
    directories: Sequence[str],
    cards: Sequence[DataCard],
    seed: int,
    epoch: Any,
    shuffle_buffer: int,
) -> tf.data.Dataset:
    """The records of one epoch, still serialized, in an order given by (seed, epoch).

    Joined sets are mixed evenly from the epoch's first record to its last, whatever their sizes.

    Args:
        directories: Of the record sets.
        cards: Theirs.
        seed: The run's.
        epoch: int64 scalar.
        shuffle_buffer: Records held for shuffling.

    Returns:
        Dataset of (string scalar, int64 [2] of epoch and index in the epoch).
    """
    sets = [_read_in_turns(shard_paths(directory), seed, epoch) for directory in directories]
    dataset = sets[0]
    if len(sets) > 1:
        counts = [card.num_images for card in cards]
        turns = tf.repeat(tf.range(len(sets), dtype=tf.int64), counts)
        turns = tf.random.experimental.stateless_shuffle(turns, [seed, epoch])
        dataset = tf.data.Dataset.choose_from_datasets(
            sets, tf.data.Dataset.from_tensor_slices(turns)
        )
    order = tf.random.stateless_uniform([], [seed, epoch], None, None, tf.int64)
    # `shuffle` mixes in the program's global seed, which must neither decide the order nor be 0
    # beside a seed that is a tensor; inside this function it can be set without touching others.
    tf.random.set_seed(1)
    # Slots for the whole buffer are made at once, however few records there are.
    buffer = min(shuffle_buffer, sum(card.num_images for card in cards))
    dataset = dataset.shuffle(buffer, seed=order, reshuffle_each_iteration=False)
    return dataset.enumerate().map(lambda index, record: (record, tf.stack([epoch, index])))


def _read_in_turns(paths: list[str], seed: int, epoch: Any) -> tf.data.Dataset:
    """The records of one set: its shards, in an order given by (seed, epoch), are read in turns."""
    shuffled = tf.random.experimental.stateless_shuffle(paths, [seed, epoch])
    return tf.data.Dataset.from_tensor_slices(shuffled).interleave(
        tf.data.TFRecordDataset,
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
    """The elements of `epoch_records`, epoch after epoch, without the first `skipped`."""
    num_images = sum(card.num_images for card in cards)
    epochs = tf.data.Dataset.range(skipped // num_images, tf.int64.max)
    dataset = epochs.flat_map(
        lambda epoch: epoch_records(directories, cards, seed, epoch, shuffle_buffer)
    )
    return dataset.skip(skipped % num_images)


def _next_epoch(first: int) -> tf.data.Dataset:
    """One element: `first`, and one more each time the dataset is iterated over."""
    with tf.init_scope(), tf.device("CPU:0"):
        epoch = tf.Variable(first - 1, trainable=False, dtype=tf.int64)
    return tf.data.Dataset.from_tensors(0).map(lambda _: epoch.assign_add(1))


def _ground_truth(sample: dict[str, Any], length: int, use_difficult: bool) -> Any:
    """Boxes and labels as float32 [G, 5], padded with zeros or cut to `length`."""
    labels = tf.cast(sample["labels"], tf.float32)
    truth = tf.concat([sample["boxes"], labels[:, None]], axis=1)
    if not use_difficult:
        truth = tf.boolean_mask(truth, ~sample["difficult"])
    truth = truth[:length]
    truth = tf.pad(truth, [[0, length - tf.shape(truth)[0]], [0, 0]])
    return tf.ensure_shape(truth, [length, 5])


def _directories(records: Records) -> list[str]:
    many = [records] if isinstance(records, (str, os.PathLike)) else records
    directories = [os.fspath(directory) for directory in many]
    if not directories:
        raise ValueError("records (=[]) must name at least one record set")
    return directories


def _paths(directories: list[str]) -> list[str]:
    return [path for directory in directories for path in shard_paths(directory)]


def _read_cards(directories: list[str]) -> list[DataCard]:
    cards = [read_card(directory) for directory in directories]
    for directory, card in zip(directories, cards, strict=True):
        if card.labels != cards[0].labels:
            raise ValueError(
                f"records {directory} have the labels {card.labels}, but {directories[0]} has "
                f"{cards[0].labels}: record sets that are joined must have the same, in one order"
            )
    return cards
