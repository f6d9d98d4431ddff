import io
import os
import textwrap
import traceback

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.data import epochs, pipeline
from ssd_keras.data.card import read_card
from ssd_keras.data.records import parse_example, read_samples, write_records
from ssd_keras.data.sources.voc import open_voc
from tests.data_sets import make_samples, voc_xml, write_voc
from tests.processes import python
from tests.tiny import TINY

NUM_IMAGES = 23
FLIP = {"augmentation": "flip_only"}  # random, and traced quickly
FAST = {"augmentation": "ssd_fast"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = tmp_path_factory.mktemp("records")
    write_records(make_samples(NUM_IMAGES), directory, ["a", "b", "c"], shards=3)
    return directory


def take(dataset, count=-1):
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(count)]


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for (images, truth), (expected_images, expected_truth) in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(truth, expected_truth)


# --- elements ---


def test_elements_are_batches_of_images_and_padded_ground_truth(records):
    dataset = pipeline.train_dataset(records, TINY, 4, **FLIP)
    images, truth = dataset.element_spec
    assert images.shape == (4, 64, 64, 3)
    assert truth.shape == (4, 3, 5)  # 3 is max_objects of the card
    assert dataset.cardinality() == NUM_IMAGES // 4
    for images, truth in take(dataset):
        assert images.dtype == truth.dtype == np.float32
        padding = truth[..., 4] == 0
        assert (truth[padding] == 0).all()
        assert (truth[~padding][:, 2:4] > truth[~padding][:, :2]).all()


def test_autograph_does_not_rewrite_the_pipeline(records, monkeypatch):
    files = []

    def parse(serialized):
        files.extend(frame.filename for frame in traceback.extract_stack())
        return parse_example(serialized)

    monkeypatch.setattr(pipeline, "parse_example", parse)
    pipeline.train_dataset(records, TINY, 4, **FLIP)
    assert pipeline.__file__ in files
    assert not [name for name in files if "autograph_generated" in name]


def test_evaluation_keeps_order_and_every_image(records):
    dataset = pipeline.eval_dataset(records, TINY, 4)
    batches = take(dataset)
    images, truth = (np.concatenate(part) for part in zip(*batches, strict=True))
    samples = list(read_samples(records))
    assert len(batches) == 6
    assert len(images) == len(samples) == NUM_IMAGES
    for image, rows, sample in zip(images, truth, samples, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB"))
        expected = tf.image.resize(pixels, [64, 64], "bilinear", antialias=False)
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(rows[: len(sample.labels), :4], sample.boxes)
        np.testing.assert_array_equal(rows[: len(sample.labels), 4], sample.labels)
        assert (rows[len(sample.labels) :] == 0).all()


def test_difficult_objects_can_be_left_out(records):
    options = {"augmentation": "none", "repeat": True}
    for use, expected in ((True, [0, 1, 2, 3]), (False, [0, 0, 1, 2])):
        dataset = pipeline.train_dataset(records, TINY, NUM_IMAGES, use_difficult=use, **options)
        ((_, truth),) = take(dataset, 1)
        ((_, evaluated),) = take(
            pipeline.eval_dataset(records, TINY, NUM_IMAGES, use_difficult=use)
        )
        assert (evaluated[..., 4] > 0).sum() == (truth[..., 4] > 0).sum()
        counts = np.sort((truth[..., 4] > 0).sum(axis=1))
        np.testing.assert_array_equal(counts, np.sort(np.resize(expected, NUM_IMAGES)))


def test_record_sets_are_joined(records, tmp_path):
    write_records(make_samples(5, "other"), tmp_path, ["a", "b", "c"], shards=1)
    both = pipeline.eval_dataset([records, tmp_path], TINY, 50)
    ((images, _),) = take(both)
    assert len(images) == NUM_IMAGES + 5
    names = epochs.batch_image_ids([records, tmp_path], NUM_IMAGES + 5, 0, 0)
    assert sorted(names) == sorted(
        [f"image{k}" for k in range(NUM_IMAGES)] + [f"other{k}" for k in range(5)]
    )


# --- order ---


def epoch_of(directories, epoch, shuffle_buffer):
    """Returns the (record, position) pairs of one epoch in order."""
    paths = [os.fspath(directory) for directory in directories]
    cards = [read_card(path) for path in paths]
    dataset = epochs.epoch_records(paths, cards, 0, tf.constant(epoch, tf.int64), shuffle_buffer)
    return list(dataset.as_numpy_iterator())


def test_an_epoch_holds_every_image_once_and_epochs_differ(records):
    orders = []
    for epoch in range(3):
        elements = epoch_of([records], epoch, 8)
        np.testing.assert_array_equal(
            [position for _, position in elements], [[epoch, k] for k in range(NUM_IMAGES)]
        )
        orders.append([record for record, _ in elements])
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2]


def test_records_of_one_shard_are_shuffled(tmp_path):
    write_records(make_samples(100), tmp_path, ["a", "b", "c"], shards=1)
    stored = [sample.image_id for sample in read_samples(tmp_path)]
    orders = []
    for epoch in range(2):
        names = [
            parse_example(r)["image_id"].numpy().decode()
            for r, _ in epoch_of([tmp_path], epoch, 99)
        ]
        orders.append([stored.index(name) for name in names])
    for one, other in ((orders[0], range(100)), (orders[1], range(100)), orders):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(100)


def shares_of_others(directories, shuffle_buffer):
    """Returns the share of images whose name starts with "other" in each quarter of an epoch."""
    names = [
        parse_example(record)["image_id"].numpy()
        for record, _ in epoch_of(directories, 0, shuffle_buffer)
    ]
    others = np.array([name.startswith(b"other") for name in names])
    return others.reshape(4, -1).mean(axis=1)


def test_a_set_in_order_of_its_classes_is_mixed_when_it_is_prepared(tmp_path):
    names = [f"{kind}{k:03d}" for kind in ("one", "other") for k in range(120)]
    write_voc(tmp_path / "voc", {name: voc_xml([("cat", 4, 5, 40, 20)]) for name in names})
    source = open_voc(tmp_path / "voc", "train")
    write_records(source.samples, tmp_path / "set", source.labels, shards=8)
    shares = shares_of_others([tmp_path / "set"], len(names) // 4)
    # Four standard deviations of 60 drawn from 240. Unmixed, the first quarter has no "other".
    np.testing.assert_allclose(shares, 0.5, atol=4 * np.sqrt(0.25 / 60 * 180 / 239))


def test_joined_sets_of_unequal_sizes_are_mixed_all_along(tmp_path):
    for name, count in (("one", 180), ("other", 60)):
        write_records(make_samples(count, name), tmp_path / name, ["a", "b", "c"], shards=8)
    shares = shares_of_others([tmp_path / "one", tmp_path / "other"], 10)
    np.testing.assert_allclose(shares, 0.25, atol=4 * np.sqrt(0.1875 / 60 * 180 / 239))


def test_no_more_slots_for_shuffling_than_there_are_records(records, monkeypatch):
    """TensorFlow allocates all slots at once: 18 GB for the billion slots requested here."""
    sizes = []
    shuffle = tf.data.Dataset.shuffle

    def spy(dataset, buffer_size, **options):
        sizes.append(buffer_size)
        return shuffle(dataset, min(buffer_size, 100), **options)

    monkeypatch.setattr(tf.data.Dataset, "shuffle", spy)
    for repeat in (False, True):
        pipeline.train_dataset(records, TINY, 4, **FLIP, repeat=repeat, shuffle_buffer=10**9)
    epochs.batch_image_ids(records, 4, 0, 0, shuffle_buffer=10**9)
    assert set(sizes) == {NUM_IMAGES}


def test_iterations_are_epochs_of_the_endless_stream(tmp_path):
    write_records(make_samples(20), tmp_path, ["a", "b", "c"], shards=2)
    endless = take(pipeline.train_dataset(tmp_path, TINY, 4, **FLIP, seed=3, repeat=True), 15)
    dataset = pipeline.train_dataset(tmp_path, TINY, 4, **FLIP, seed=3)
    assert_same(take(dataset) + take(dataset) + take(dataset), endless)
    other = take(pipeline.train_dataset(tmp_path, TINY, 4, **FLIP, seed=4))
    assert any((a[0] != b[0]).any() for a, b in zip(other, endless, strict=False))


def test_an_image_looks_different_in_every_epoch(tmp_path):
    write_records(make_samples(1), tmp_path, ["a", "b", "c"], shards=1)
    dataset = pipeline.train_dataset(tmp_path, TINY, 1, **FAST, repeat=True)
    assert len({images.tobytes() for images, _ in take(dataset, 6)}) == 6


def test_an_image_looks_different_in_every_run(tmp_path):
    """A set of one image has only one order, so the augmentation must depend on the seed."""
    write_records(make_samples(1), tmp_path, ["a", "b", "c"], shards=1)
    runs = [
        {
            images.tobytes()
            for images, _ in take(
                pipeline.train_dataset(tmp_path, TINY, 1, **FAST, seed=seed, repeat=True), 4
            )
        }
        for seed in (0, 1)
    ]
    assert runs[0].isdisjoint(runs[1])


@pytest.mark.parametrize("step", [3, 6, 13])
def test_a_resumed_run_sees_what_the_uninterrupted_one_saw(records, step):
    options = {"seed": 1, "repeat": True, **FLIP}
    whole = take(pipeline.train_dataset(records, TINY, 4, **options), 15)
    resumed = pipeline.train_dataset(records, TINY, 4, start_step=step, **options)
    assert_same(take(resumed, 15 - step), whole[step:])


def test_a_script_that_is_started_again_goes_on_with_its_epochs(records):
    options = {"seed": 1, **FLIP}
    whole = pipeline.train_dataset(records, TINY, 4, **options)
    epochs = [take(whole) for _ in range(3)]
    again = pipeline.train_dataset(records, TINY, 4, start_step=2 * len(epochs[0]), **options)
    assert_same(take(again), epochs[2])


def test_same_pixels_whatever_the_number_of_threads(records):
    def batches(threads):
        dataset = pipeline.train_dataset(records, TINY, 4, **FAST, seed=2, repeat=True)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        return take(dataset.with_options(options), 12)

    expected = batches(1)
    assert_same(batches(5), expected)


def test_image_ids_of_a_batch(records):
    sizes = {sample.image_id: len(sample.labels) for sample in read_samples(records)}
    dataset = pipeline.train_dataset(records, TINY, 4, seed=5, repeat=True, augmentation="none")
    stream = []
    for step, (_, truth) in enumerate(take(dataset, 6)):
        names = epochs.batch_image_ids(records, 4, 5, step)
        stream += names
        assert [sizes[name] for name in names] == (truth[..., 4] > 0).sum(axis=1).tolist()
    assert sorted(stream[:NUM_IMAGES]) == sorted(sizes)  # a batch may span two epochs


def test_fit_trains_on_different_epochs(records):
    seen = []

    class Mean(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, images):
            return tf.reduce_mean(images, axis=[1, 2, 3])[:, None] * self.scale

    class Loss(keras.losses.Loss):
        def call(self, truth, means):
            tf.py_function(lambda m: seen.append(m.numpy().tobytes()), [means], [])
            return tf.reduce_mean(means, axis=-1)

    model = Mean()
    model.compile(keras.optimizers.SGD(0.0), Loss())
    history = model.fit(
        pipeline.train_dataset(records, TINY, 4, **FLIP), epochs=3, shuffle=False, verbose=0
    )
    assert len(history.history["loss"]) == 3
    assert len(seen) >= 15
    assert len(set(seen)) == len(seen)  # no batch occurs twice


def test_it_works_under_a_distribution_strategy(records):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        dataset = pipeline.train_dataset(records, TINY, 4, **FLIP)
        first, second = take(dataset), take(dataset)
    assert (first[0][0] != second[0][0]).any()


def test_a_small_set_repeats_within_a_batch(records):
    ((images, _),) = take(pipeline.train_dataset(records, TINY, 30, repeat=True), 1)
    assert len(images) == 30


# --- memory ---


# Runs in a separate process, because the memory of other tests would hide a leak.
MEMORY = """
    import gc, os, sys
    from ssd_keras.config import SSD300_VOC
    from ssd_keras.data.pipeline import train_dataset

    def resident_megabytes():
        gc.collect()
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    batches = iter(train_dataset(sys.argv[1], SSD300_VOC, 4, augmentation="ssd_fast", repeat=True))
    for _ in range(8):  # graphs, buffers, threads
        next(batches)
    start = resident_megabytes()
    for _ in range(40):  # 20 epochs: 173 MB of images
        next(batches)
    end = resident_megabytes()
    kept = [next(batches) for _ in range(40)]
    print(end - start, resident_megabytes() - end)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_memory_stays_flat_over_twenty_epochs(tmp_path):
    write_records(make_samples(8), tmp_path, ["a", "b", "c"], shards=2)
    done = python(textwrap.dedent(MEMORY), tmp_path)
    assert done.returncode == 0, done.stderr
    grown, leaked = map(float, done.stdout.split())
    assert grown < 60
    assert leaked > 100  # a leak would be visible


# --- the tf.data service ---


def test_workers_of_the_service_share_the_work(records):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    workers = [service.WorkerServer(service.WorkerConfig(address)) for _ in range(2)]
    dataset = pipeline.train_dataset(
        records, TINY, 4, **FAST, repeat=True, service=dispatcher.target
    )
    iterator = iter(dataset)
    batches = [next(iterator)[0].numpy().tobytes() for _ in range(30)]
    assert all(worker._num_tasks() for worker in workers)
    # No batch comes twice, since each epoch is made by one worker.
    assert len(set(batches)) == 30
    workers.pop()._stop()  # one worker dies; the other continues
    assert len({next(iterator)[0].numpy().tobytes() for _ in range(30)}) == 30
    del iterator, dataset, workers
