"""The input pipeline: record sets to batches for `model.fit`.

Images stay encoded until they are augmented. Every random choice depends only on the seed of the
run, the epoch and the index of the sample in the epoch. The same arguments therefore give the same
pixels with any number of threads, and a resumed run gets the batches that an uninterrupted run
would have had.
"""

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ssd_keras.augmentation.ops import AUGMENTATIONS, Op, augment
from ssd_keras.config import SSDConfig
from ssd_keras.data.card import DataCard, read_card
from ssd_keras.data.pipeline_checks import check_integers, check_service, check_sizes, padded_length
from ssd_keras.data.record_checks import checked_records
from ssd_keras.data.records import parse_example, shard_paths
from ssd_keras.images import warp

# One record set, or several to join.
Records = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

SHUFFLE_BUFFER = 4096  # encoded records; about 400 MB for VOC
_READERS = 16  # shards that are read in parallel


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
) -> tf.data.Dataset:
    """Creates batches of augmented images for training.

    Without `repeat`, one iteration over the dataset is one epoch, and the next iteration is the
    next epoch: `model.fit(dataset, epochs=n)` trains on n different epochs. An incomplete last
    batch is dropped.

    With `repeat`, the dataset is an endless stream of epochs, cut into batches. The images in batch
    k then depend only on (records, seed, batch_size, shuffle_buffer, k).

    Args:
        records: Directory of a record set, or directories of several sets to join. Joined sets
            must have the same class names in the same order.
        config: Configuration of the model. It gives S, the side of the images in pixels.
        batch_size: B, at least 1. Without `repeat`, at most the number of images.
        augmentation: A key of `ssd_keras.augmentation.ops.AUGMENTATIONS`: "ssd", "ssd_no_expand",
            "ssd_fast", "flip_only" or "none".
        seed: Seed of the order and of the augmentation.
        repeat: Whether the dataset continues with the next epoch after the last record.
        start_step: Index of the first batch, to resume a run. Earlier batches are skipped without
            decoding their images. Without `repeat`, it must be the first batch of an epoch.
        max_boxes: G, the number of ground truth rows that each image is padded to. None uses the
            largest number of objects in the data cards, with a warning if very few images have so
            many. A number below the largest gives a warning with the number of objects that may
            be left out.
        use_difficult: Whether difficult objects are ground truth. By default they are, as in the
            original. The crop samplers use all objects in either case.
        shuffle_buffer: Number of encoded records held for shuffling.
        service: Address of a `tf.data` service dispatcher ("grpc://host:port"), whose workers then
            run the pipeline. The workers must find the records under the same paths. Needs
            `repeat`. The order of batches is not fixed, since the workers share the epochs. If a
            worker dies, the rest of its current epoch is lost and the other workers continue. If
            no worker is left, training waits for a new one.

    Returns:
        A `tf.data.Dataset` of (images, ground truth). Images are float32 `[B, S, S, 3]`, RGB
        0..255. Ground truth is float32 `[B, G, 5]` with rows (ymin, xmin, ymax, xmax, label id);
        boxes are normalized, and rows of padding are 0.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ConnectionError: If nothing answers at `service`.
        ValueError: If an argument is out of range, or the record sets have different class names.

    Source:
        ssd_pascal.py (`train_on_diff_gt` for difficult objects).
    """
    numbers = {"batch_size": batch_size, "seed": seed, "start_step": start_step}
    check_integers(**numbers, max_boxes=max_boxes or 0, shuffle_buffer=shuffle_buffer)
    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation (={augmentation!r}) must be one of {', '.join(AUGMENTATIONS)}"
        )
    if not repeat and service:
        raise ValueError(
            f"service (={service}) needs repeat=True: its workers share an endless stream of epochs"
        )
    if start_step < 0:
        raise ValueError(f"start_step (={start_step}) must not be negative")
    if service:
        check_service(service)
    directories = _directories(records)
    cards = _read_cards(directories)
    num_images = sum(card.num_images for card in cards)
    check_sizes(_paths(directories), num_images, batch_size, shuffle_buffer, repeat)
    length = padded_length(cards, max_boxes)
    ops = AUGMENTATIONS[augmentation]

    def make_sample(serialized: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sample = training_sample(serialized, position, config, seed, ops)
        return sample["image"], _ground_truth(sample, length, use_difficult)

    if repeat:
        dataset = endless_records(directories, cards, seed, shuffle_buffer, start_step * batch_size)
        batches = tf.data.INFINITE_CARDINALITY
    else:
        batches = num_images // batch_size
        if start_step % batches:
            raise ValueError(
                f"start_step (={start_step}) must be a multiple of the {batches} batches of an "
                "epoch, or repeat must be True"
            )
        dataset = _next_epoch(start_step // batches).flat_map(
            lambda epoch: epoch_records(directories, cards, seed, epoch, shuffle_buffer)
        )
    dataset = dataset.map(make_sample, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    if service:
        policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        dataset = dataset.apply(tf.data.experimental.service.distribute(policy, service))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    return dataset.prefetch(tf.data.AUTOTUNE)


def eval_dataset(
    records: Records, config: SSDConfig, batch_size: int, *, use_difficult: bool = True
) -> tf.data.Dataset:
    """Creates batches without augmentation, for example to compute `val_loss`.

    The dataset has every image once, in stored order.

    Args:
        records: Directory of a record set, or directories of several sets to join. Joined sets
            must have the same class names in the same order.
        config: Configuration of the model. It gives S, the side of the images in pixels.
        batch_size: B, at least 1. The last batch may be smaller.
        use_difficult: Whether difficult objects are ground truth. Use the same value as in
            `train_dataset`; otherwise `loss` and `val_loss` have different targets.

    Returns:
        A `tf.data.Dataset` of (images, ground truth), as `train_dataset` returns it.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ValueError: If the record sets have different class names, or `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size (={batch_size}) must be at least 1")
    directories = _directories(records)
    cards = _read_cards(directories)
    length = padded_length(cards, None)
    batches = -(-sum(card.num_images for card in cards) // batch_size)

    def make_sample(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sample = parse_example(serialized)
        truth = _ground_truth(sample, length, use_difficult)
        return warp(sample["image"], config.image_size, sample["max_pixels"]), truth

    paths = tf.data.Dataset.from_tensor_slices(_paths(directories))
    dataset = paths.flat_map(lambda path: checked_records(path, len(cards[0].labels)))
    dataset = dataset.map(make_sample, num_parallel_calls=tf.data.AUTOTUNE)
    # With a known cardinality, Keras does not request a batch after the last one.
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
    """Returns the ids of the images in one batch of `train_dataset(..., repeat=True)`.

    No image is decoded.

    Args:
        records: See `train_dataset`.
        batch_size: B, as of the training dataset.
        seed: Seed of the training dataset.
        step: Index of the batch.
        shuffle_buffer: As of the training dataset.

    Returns:
        B image ids, in the order of the batch.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ValueError: If the record sets have different class names.
    """
    directories = _directories(records)
    cards = _read_cards(directories)
    dataset = endless_records(directories, cards, seed, shuffle_buffer, step * batch_size)
    dataset = dataset.take(batch_size).map(lambda record, _: parse_example(record)["image_id"])
    return [image_id.decode() for image_id in dataset.as_numpy_iterator()]


def training_sample(
    serialized: tf.Tensor, position: tf.Tensor, config: SSDConfig, seed: int, ops: tuple[Op, ...]
) -> dict[str, Any]:
    """Augments one record with a seed that depends on (seed, epoch, index in the epoch).

    Args:
        serialized: string scalar, a record from `epoch_records`.
        position: int64 `[2]`, epoch and index in the epoch, from `epoch_records`.
        config: Configuration of the model.
        seed: Seed of the run.
        ops: Augmentation ops.

    Returns:
        The dictionary that `augment` returns.
    """
    sample_seed = tf.random.experimental.stateless_fold_in([seed, position[0]], position[1])
    return augment(parse_example(serialized), config, sample_seed, ops)


def epoch_records(
    directories: Sequence[str],
    cards: Sequence[DataCard],
    seed: int,
    epoch: tf.Tensor,
    shuffle_buffer: int,
) -> tf.data.Dataset:
    """Creates a dataset of the records of one epoch, in an order that depends on (seed, epoch).

    Joined sets are mixed evenly over the epoch, in proportion to their sizes.

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
    # independent of the program's. It must not be 0, which fails with a tensor as the other seed.
    # Inside a function of `tf.data`, `set_seed` changes the seed of that function's graph only.
    tf.random.set_seed(1)
    # `shuffle` allocates the whole buffer at once, even if there are fewer records.
    buffer = min(shuffle_buffer, sum(card.num_images for card in cards))
    dataset = dataset.shuffle(buffer, seed=order, reshuffle_each_iteration=False)
    return dataset.enumerate().map(lambda index, record: (record, tf.stack([epoch, index])))


def _interleaved_shards(paths: list[str], classes: int, seed: int, epoch: Any) -> tf.data.Dataset:
    """Interleaves the shards of a record set, in an order that depends on (seed, epoch)."""
    shuffled = tf.random.experimental.stateless_shuffle(paths, [seed, epoch])
    return tf.data.Dataset.from_tensor_slices(shuffled).interleave(
        lambda path: checked_records(path, classes),
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
        lambda epoch: epoch_records(directories, cards, seed, epoch, shuffle_buffer)
    )
    return dataset.skip(skipped % num_images)


def _next_epoch(first: int) -> tf.data.Dataset:
    """Creates a dataset of one element, the epoch: `first`, then one more in each iteration."""
    with tf.init_scope(), tf.device("CPU:0"):
        epoch = tf.Variable(first - 1, trainable=False, dtype=tf.int64)
    return tf.data.Dataset.from_tensors(0).map(lambda _: epoch.assign_add(1))


def _ground_truth(sample: dict[str, tf.Tensor], length: int, use_difficult: bool) -> tf.Tensor:
    """Concatenates boxes and labels to float32 `[length, 5]`, padded with zeros or cut off."""
    labels = tf.cast(sample["labels"], tf.float32)
    truth = tf.concat([sample["boxes"], labels[:, None]], axis=1)
    if not use_difficult:
        truth = tf.boolean_mask(truth, ~sample["difficult"])
    truth = truth[:length]
    truth = tf.pad(truth, [[0, length - tf.shape(truth)[0]], [0, 0]])
    return tf.ensure_shape(truth, [length, 5])


def _directories(records: Records) -> list[str]:
    sequence = [records] if isinstance(records, (str, os.PathLike)) else records
    directories = [os.fspath(directory) for directory in sequence]
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
                f"record set {directory} has the class names {card.labels}, but {directories[0]} "
                f"has {cards[0].labels}: joined sets must have the same names in the same order"
            )
    return cards
