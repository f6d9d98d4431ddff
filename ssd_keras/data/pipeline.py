"""The input pipeline: record sets to batches for `model.fit`.

Images stay encoded until they are augmented. Every random choice depends only on the seed of the
run, the epoch and the index of the sample in the epoch. The same arguments therefore give the same
pixels with any number of threads, and a resumed run gets the batches that an uninterrupted run
would have had.
"""

from typing import Any

import tensorflow as tf

from ssd_keras.augmentation.ops import AUGMENTATIONS, Op, augment
from ssd_keras.config import SSDConfig
from ssd_keras.config_files import ConfigLike, as_config
from ssd_keras.data.epochs import (
    SHUFFLE_BUFFER,
    Records,
    as_graph,
    directories_of,
    endless_records,
    epoch_records,
    next_epoch,
    paths_of,
    read_cards,
)
from ssd_keras.data.pipeline_checks import check_integers, check_service, check_sizes, padded_length
from ssd_keras.data.record_checks import checked_records
from ssd_keras.data.records import parse_example
from ssd_keras.images import warp


def train_dataset(
    records: Records,
    config: ConfigLike,
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
    """Creates batches of augmented images for training.

    Without `repeat`, one iteration over the dataset is one epoch, and the next iteration is the
    next epoch: `model.fit(dataset, epochs=n)` trains on n different epochs. An incomplete last
    batch is dropped.

    With `repeat`, the dataset is an endless stream of epochs, cut into batches. The images in batch
    k then depend only on (records, seed, batch_size, shuffle_buffer, k).

    Args:
        records: Directory of a record set, or directories of several sets to join. Joined sets
            must have the same class names in the same order.
        config: Configuration of the model, or its name. It gives H and W, the size of the images.
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
        part: (index, number) of the parts that each batch is cut into, for several machines. Only
            the images of this part are decoded and augmented. Needs `repeat`.

    Returns:
        A `tf.data.Dataset` of (images, ground truth). Images are float32 `[B, H, W, 3]`, RGB
        0..255. Ground truth is float32 `[B, G, 5]` with rows (ymin, xmin, ymax, xmax, label id);
        boxes are normalized, and rows of padding are 0. With `part`, B is the part of the batch.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ConnectionError: If nothing answers at `service`.
        ValueError: If an argument is out of range, or the record sets have different class names.

    Source:
        ssd_pascal.py (`train_on_diff_gt` for difficult objects).
    """
    config = as_config(config)
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
        raise ValueError(f"start_step (={start_step}) must be at least 0")
    index, parts = part
    if not 0 <= index < parts or batch_size % parts or (parts > 1 and not repeat):
        raise ValueError(
            f"part (={part}) must be (index, number): number must be a divisor of batch_size "
            f"(={batch_size}), or 1 without repeat, and index must be from 0 to number - 1"
        )
    if service:
        check_service(service)
    directories = directories_of(records)
    cards = read_cards(directories)
    num_images = sum(card.num_images for card in cards)
    check_sizes(paths_of(directories), num_images, batch_size, shuffle_buffer, repeat)
    length = padded_length(cards, max_boxes)
    ops = AUGMENTATIONS[augmentation]

    @as_graph
    def make_sample(serialized: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sample = training_sample(serialized, position, config, seed, ops)
        return sample["image"], _ground_truth(sample, length, use_difficult)

    if repeat:
        dataset = endless_records(directories, cards, seed, shuffle_buffer, start_step * batch_size)
        batches = tf.data.INFINITE_CARDINALITY
        if parts > 1:
            rows = batch_size // parts

            @as_graph
            def in_part(_: Any, position: Any) -> Any:
                return (position[0] * num_images + position[1]) % batch_size // rows == index

            dataset = dataset.filter(in_part)
    else:
        batches = num_images // batch_size
        if start_step % batches:
            raise ValueError(
                f"start_step (={start_step}) must be a multiple of the {batches} batches of an "
                "epoch, or repeat must be True"
            )
        dataset = next_epoch(start_step // batches).flat_map(
            as_graph(lambda epoch: epoch_records(directories, cards, seed, epoch, shuffle_buffer))
        )
    dataset = dataset.map(make_sample, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size // parts, drop_remainder=True)
    if service:
        policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        dataset = dataset.apply(tf.data.experimental.service.distribute(policy, service))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    return dataset.prefetch(tf.data.AUTOTUNE)


def eval_dataset(
    records: Records, config: ConfigLike, batch_size: int, *, use_difficult: bool = True
) -> tf.data.Dataset:
    """Creates batches without augmentation, for example to compute `val_loss`.

    The dataset has every image once, in stored order.

    Args:
        records: Directory of a record set, or directories of several sets to join. Joined sets
            must have the same class names in the same order.
        config: Configuration of the model, or its name. It gives H and W, the size of the images.
        batch_size: B, at least 1. The last batch may be smaller.
        use_difficult: Whether difficult objects are ground truth. Use the same value as in
            `train_dataset`; otherwise `loss` and `val_loss` have different targets.

    Returns:
        A `tf.data.Dataset` of (images, ground truth), as `train_dataset` returns it.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ValueError: If the record sets have different class names, or `batch_size` is below 1.
    """
    config = as_config(config)
    if batch_size < 1:
        raise ValueError(f"batch_size (={batch_size}) must be at least 1")
    directories = directories_of(records)
    cards = read_cards(directories)
    length = padded_length(cards, None)
    batches = -(-sum(card.num_images for card in cards) // batch_size)

    @as_graph
    def make_sample(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sample = parse_example(serialized)
        truth = _ground_truth(sample, length, use_difficult)
        return warp(sample["image"], config.image_size, sample["max_pixels"]), truth

    paths = tf.data.Dataset.from_tensor_slices(paths_of(directories))
    dataset = paths.flat_map(as_graph(lambda path: checked_records(path, len(cards[0].labels))))
    dataset = dataset.map(make_sample, num_parallel_calls=tf.data.AUTOTUNE)
    # With a known cardinality, Keras does not request a batch after the last one.
    dataset = dataset.batch(batch_size).apply(tf.data.experimental.assert_cardinality(batches))
    return dataset.prefetch(tf.data.AUTOTUNE)


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


def _ground_truth(sample: dict[str, tf.Tensor], length: int, use_difficult: bool) -> tf.Tensor:
    """Concatenates boxes and labels to float32 `[length, 5]`, padded with zeros or cut off."""
    labels = tf.cast(sample["labels"], tf.float32)
    truth = tf.concat([sample["boxes"], labels[:, None]], axis=1)
    if not use_difficult:
        truth = tf.boolean_mask(truth, ~sample["difficult"])
    truth = truth[:length]
    truth = tf.pad(truth, [[0, length - tf.shape(truth)[0]], [0, 0]])
    return tf.ensure_shape(truth, [length, 5])
