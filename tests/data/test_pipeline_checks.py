import dataclasses
import os
import warnings

import numpy as np
import pytest

from ssd_keras.data import pipeline
from ssd_keras.data.records import write_records
from tests.data_sets import make_samples
from tests.tiny import TINY

NUM_IMAGES = 23


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = tmp_path_factory.mktemp("records")
    write_records(make_samples(NUM_IMAGES), directory, ["a", "b", "c"], shards=3)
    return directory


def test_padding_is_never_cut_silently(records):
    with pytest.warns(UserWarning, match=r"max_boxes \(=1\).*\(3\): up to 16 objects in 11 images"):
        dataset = pipeline.train_dataset(records, TINY, 4, max_boxes=1)
    assert dataset.element_spec[1].shape == (4, 1, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = pipeline.train_dataset(records, TINY, 4, max_boxes=50)
    assert dataset.element_spec[1].shape == (4, 50, 5)


def test_an_image_with_far_more_objects_than_the_others_is_told(records, tmp_path):
    crowd = next(make_samples(1, "crowd"))
    for count, directory in ((101, tmp_path / "a"), (100, tmp_path / "b")):
        boxes = np.tile(np.float32([[0, 0, 0.5, 0.5]]), (count, 1))
        labels, difficult = np.ones(count, int), np.zeros(count, bool)
        many = dataclasses.replace(crowd, boxes=boxes, labels=labels, difficult=difficult)
        write_records([many], directory, ["a", "b", "c"], shards=1)
    message = r"to 101 objects, but all except 1 of 24 images have at most 3: .* max_boxes=3 would"
    with pytest.warns(UserWarning, match=message):
        pipeline.eval_dataset([records, tmp_path / "a"], TINY, 4)
    pipeline.eval_dataset([records, tmp_path / "b"], TINY, 4)  # a warning would be an error
    pipeline.eval_dataset(tmp_path / "a", TINY, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"augmentation": "sdd"}, r"augmentation \(='sdd'\) must be one of ssd, ssd_no_expand"),
        ({"batch_size": 0}, r"batch_size \(=0\) must be at least 1"),
        ({"batch_size": 24}, r"batch_size \(=24\) must not exceed .* \(23\)"),
        ({"shuffle_buffer": 0}, r"shuffle_buffer \(=0\) must be at least 1"),
        ({"start_step": 1}, r"start_step \(=1\) must be a multiple of the 5 batches of an epoch"),
        ({"start_step": -5, "repeat": True}, r"start_step \(=-5\) must be at least 0"),
        ({"max_boxes": 0}, r"max_boxes \(=0\) must be at least 1"),
        ({"max_boxes": 2.5}, r"max_boxes \(=2.5\) must be an integer"),
        ({"batch_size": 2.0}, r"batch_size \(=2.0\) must be an integer"),
        ({"seed": 1.5}, r"seed \(=1.5\) must be an integer"),
    ],
)
def test_bad_arguments_are_named(records, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.train_dataset(records, TINY, **{"batch_size": 4, **arguments})


def test_incomplete_and_unlike_record_sets_are_refused(records, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"card\.json"):
        pipeline.train_dataset(tmp_path / "nothing", TINY, 4)
    write_records(make_samples(3), tmp_path / "other", ["a", "c", "b"], shards=1)
    with pytest.raises(ValueError, match=r"other has the class .*'c', 'b'.* must have the same"):
        pipeline.eval_dataset([records, tmp_path / "other"], TINY, 4)
    with pytest.raises(ValueError, match="at least one"):
        pipeline.eval_dataset([], TINY, 4)


def test_a_shuffle_buffer_beyond_memory_is_refused(records, monkeypatch):
    record_bytes = sum(p.stat().st_size for p in records.glob("*.tfrecord")) / NUM_IMAGES
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": int(record_bytes * 20)}
    monkeypatch.setattr(os, "sysconf", pages.get)
    pipeline.train_dataset(records, TINY, 4, shuffle_buffer=9)
    with pytest.raises(ValueError, match=r"shuffle_buffer \(=4096\) needs about .* at most 9 rec"):
        pipeline.train_dataset(records, TINY, 4)


@pytest.mark.parametrize("address", ["grpc://localhost:1", "localhost", "grpc://localhost:port"])
def test_a_service_that_does_not_answer_is_named(records, address):
    with pytest.raises(ConnectionError, match=rf"service \(='{address}'\) does not answer"):
        pipeline.train_dataset(records, TINY, 4, repeat=True, service=address)
