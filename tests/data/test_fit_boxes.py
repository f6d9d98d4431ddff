import dataclasses

import numpy as np
import pytest

from ssd_keras.augmentation.ops import SSD_OPS
from ssd_keras.boxes import pairwise_iou
from ssd_keras.config import SSD300_VOC, SSDConfig
from ssd_keras.config_files import as_config
from ssd_keras.data.box_coverage import coverage, coverage_table, object_boxes
from ssd_keras.data.fit_boxes import fitted_config, nearest_iou
from ssd_keras.data.pipeline import train_dataset
from ssd_keras.data.records import write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.matching import match
from ssd_keras.tiling import default_boxes
from tests.cli import in_process, loaded_command
from tests.tiny import TINY


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("records") / "set")
    write_records(draw_shapes(6, 0, image_size=64), directory, SHAPE_LABELS, shards=2)
    return directory


def random_boxes(seed, count, low=0.02, high=0.3):
    rng = np.random.default_rng(seed)
    size = rng.uniform(low, high, (count, 2))
    corner = rng.uniform(0, 1 - size)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def test_coverage_by_hand():
    """In TINY, the first default box of conv4_3 has its center at 4 px and a side of 8 px."""
    first = np.array([[0, 0, 8, 8]], np.float32) / 64  # the box itself
    tiny = np.array([[2, 2, 3, 3]], np.float32) / 64  # matched by the bipartite step only
    line = np.array([[9, 9, 9, 30]], np.float32) / 64  # without area: never matched
    found = coverage([np.concatenate([first, line]), np.zeros((0, 4), np.float32), tiny], TINY)
    np.testing.assert_allclose(found.sizes, [[8, 8], [0, 21], [1, 1]], atol=1e-5)
    np.testing.assert_allclose(found.best_iou, [1, 0, 1 / 64], atol=1e-6)
    assert (found.by_threshold > 0).tolist() == [True, False, False]
    assert (found.positives > 0).tolist() == [True, False, True]
    assert found.share == pytest.approx(1 / 3)
    assert [(s.feature_map, s.width, s.height, s.count) for s in found.shapes[:2]] == [
        ("conv4_3", 8, 8, 64),
        ("conv4_3", pytest.approx(11.3137), pytest.approx(11.3137), 64),
    ]
    assert found.matches.sum() == found.positives.sum()
    rows = coverage_table(found).splitlines()
    assert rows[1].split()[:5] == ["all", "3", "33.3%", "33.3%", "33.3%"]


def test_coverage_counts_what_the_loss_matches():
    boxes = [random_boxes(k, 6) for k in range(3)]
    found = coverage(boxes, TINY)
    matched = [
        match(np.pad(b, [(0, 0), (0, 1)], constant_values=1)[None], default_boxes(TINY))[0].numpy()
        for b in boxes
    ]
    positives = [np.sum(m == g) for m in matched for g in range(6)]
    assert found.positives.tolist() == positives
    # The first 256 default boxes have the four shapes of conv4_3 in turn.
    shape = np.concatenate([np.flatnonzero(m >= 0) for m in matched])
    assert found.matches[:4].tolist() == [
        np.sum((shape < 256) & (shape % 4 == k)) for k in range(4)
    ]


def test_objects_are_those_of_the_training(records):
    boxes = object_boxes([records], SSD_OPS, seed=3, draws=2)
    assert len(boxes) == 12
    plain = object_boxes([records], limit=4)
    assert len(plain) == 4
    stored = [
        t[t[:, 4] > 0, :4]
        for _, t in train_dataset(
            records, TINY, 1, augmentation="none", shuffle_buffer=1
        ).as_numpy_iterator()
        for t in t
    ]
    assert sum(map(len, stored)) == sum(map(len, object_boxes([records])))


@pytest.mark.parametrize("size", [300, (160, 288)])
def test_the_nearest_cell_has_the_largest_iou(size):
    config = SSDConfig.for_image_size(size)
    boxes = random_boxes(5, 40, high=0.6)
    corners = boxes.astype(float) * np.tile(config.input_size, 2)
    objects = np.concatenate(
        [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1
    )
    nearest = [nearest_iou(objects, m, config) for m in config.feature_maps]
    want = pairwise_iou(boxes, default_boxes(config)).numpy().max(axis=1)
    np.testing.assert_allclose(np.max(nearest, axis=0), want, atol=1e-5)


def test_a_fit_matches_more_objects_within_the_budget():
    """Wide objects of 6 to 24 pixels. The smallest boxes of SSD300 are 30 x 30 and 21 x 42."""
    rng = np.random.default_rng(0)
    height = rng.uniform(6, 12, (300, 1)) / 300
    size = np.concatenate([height, 2 * height], axis=1)
    corner = rng.uniform(0, 1 - size)
    boxes = [np.concatenate([corner, corner + size], axis=1).astype(np.float32)]
    fitted = fitted_config(boxes, SSD300_VOC)
    assert fitted.num_default_boxes <= 8732
    before, after = coverage(boxes, SSD300_VOC).share, coverage(boxes, fitted).share
    assert before < 0.05
    assert after > 0.6
    assert [m.size for m in fitted.feature_maps] == [m.size for m in SSD300_VOC.feature_maps]


def test_a_fit_keeps_a_smaller_budget_and_what_is_good():
    boxes = [random_boxes(1, 50)]
    small = fitted_config(boxes, TINY, max_boxes=200)
    assert small.num_default_boxes <= 200
    with pytest.raises(ValueError, match=r"max_boxes \(=100\) must be at least 170"):
        fitted_config(boxes, TINY, max_boxes=100)
    perfect = [default_boxes(TINY)[[0, 5, 300, 379]]]
    assert coverage(perfect, fitted_config(perfect, TINY)).share == 1
    with pytest.raises(ValueError, match="no objects"):
        fitted_config([np.zeros((0, 4))], TINY)


def test_the_command_writes_a_config_and_a_picture(records, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    start = dataclasses.replace(SSDConfig.for_image_size(128), mean=(1.0, 2.0, 3.0))
    from ssd_keras.config_files import write_config

    write_config(start, tmp_path / "start.json")
    with loaded_command("fit-boxes") as command:
        values = {"records": records, "config": tmp_path / "start.json"}
        values |= {"out": tmp_path / "mine.json", "plot": tmp_path / "fit.png"}
        flags = [f"--{name}={value}" for name, value in values.items()]
        assert in_process(command, *flags) == 0
    text = capsys.readouterr().out
    assert "fitted, augmentation ssd" in text
    fitted = as_config(tmp_path / "mine.json")
    assert (fitted.image_size, fitted.mean) == (128, (1, 2, 3))
    assert fitted.num_default_boxes <= start.num_default_boxes
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_a_default_box_counts_for_the_object_that_it_is_matched_to():
    """Two equal objects: the first takes the default boxes, and the second keeps one."""
    box = np.array([[0, 0, 8, 8]], np.float32) / 64
    found = coverage([np.concatenate([box, box])], TINY)
    assert found.positives[1] == 1
    assert (found.by_threshold <= found.positives).all()
    assert found.by_threshold.sum() == coverage([box], TINY).by_threshold.sum()
