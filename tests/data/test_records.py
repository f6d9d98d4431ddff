import dataclasses
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.data import card, record_checks, records


def encoded(image_format="JPEG", size=(4, 3)):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, image_format)
    return buffer.getvalue()


def sample(image_id="a", boxes=(), labels=(), difficult=None, image=None):
    return records.Sample(
        image=encoded() if image is None else image,
        image_id=image_id,
        height=3,
        width=4,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        difficult=np.array([False] * len(labels) if difficult is None else difficult, bool),
    )


TWO = sample("Zoë 2", [[0.1, 0.2, 0.5, 0.8], [0, 0, 1, 1]], [2, 1], [True, False])


def assert_same(a, b):
    assert (a.image, a.image_id, a.height, a.width) == (b.image, b.image_id, b.height, b.width)
    for name, dtype in (("boxes", np.float32), ("labels", np.int64), ("difficult", bool)):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == dtype
    assert a.boxes.shape == (len(a.labels), 4)


@pytest.mark.parametrize("in_graph", [False, True])
def test_parse_example_gives_back_what_was_serialized(in_graph):
    parse = tf.function(records.parse_example) if in_graph else records.parse_example
    parsed = parse(tf.constant(records.serialize(TWO)))
    assert parsed["image"].numpy() == TWO.image
    assert parsed["image_id"].numpy().decode() == "Zoë 2"
    assert (parsed["height"].numpy(), parsed["width"].numpy()) == (3, 4)
    np.testing.assert_array_equal(parsed["boxes"], TWO.boxes)
    np.testing.assert_array_equal(parsed["labels"], [2, 1])
    np.testing.assert_array_equal(parsed["difficult"], [True, False])
    assert int(parsed["max_pixels"]) == 100_000_000
    dtypes = {key: value.dtype for key, value in parsed.items()}
    assert dtypes["boxes"] == tf.float32
    assert dtypes["difficult"] == tf.bool
    assert dtypes["labels"] == dtypes["height"] == dtypes["width"] == tf.int32


def test_keys_are_those_of_the_object_detection_api():
    example = tf.train.Example.FromString(records.serialize(sample(image=encoded("PNG"))))
    assert sorted(example.features.feature) == [
        "image/encoded",
        "image/format",
        "image/height",
        "image/object/bbox/xmax",
        "image/object/bbox/xmin",
        "image/object/bbox/ymax",
        "image/object/bbox/ymin",
        "image/object/class/label",
        "image/object/difficult",
        "image/source_id",
        "image/width",
    ]
    assert example.features.feature["image/format"].bytes_list.value[0] == b"png"


def test_round_trip_is_in_stored_order_whatever_the_number_of_objects(tmp_path):
    many = sample("b", np.tile([0.0, 0.0, 0.5, 0.5], (1000, 1)), [1] * 1000)
    written = [sample("none"), many, TWO]
    records.write_records(written, tmp_path, ["cat", "dog"], shards=2)
    read = list(records.read_samples(tmp_path))
    # `printf b | sha256sum` ends with the odd digit d, the others are even.
    assert [s.image_id for s in read] == ["none", "Zoë 2", "b"]
    for actual, expected in zip(read, [written[0], TWO, many], strict=True):
        assert_same(actual, expected)
    assert [path.rpartition("/")[2] for path in records.shard_paths(tmp_path)] == [
        "records-00000-of-00002.tfrecord",
        "records-00001-of-00002.tfrecord",
    ]


def test_card_counts(tmp_path):
    notes = card.Notes()
    notes.skipped["box without area"].append("b object 1")
    written = records.write_records(
        [sample("none"), TWO, sample("b", [[0, 0, 0.25, 0.25]], [2])],
        tmp_path,
        ["cat", "dog"],
        shards=2,
        source="by hand",
        category_ids=[7, 90],
        notes=notes,
    )
    assert dataclasses.asdict(written) == {
        "source": "by hand",
        "labels": ("cat", "dog"),
        "category_ids": (7, 90),
        "num_images": 3,
        "num_objects": 3,
        "num_difficult": 1,
        "max_objects": 2,
        "objects_per_class": {"cat": 1, "dog": 2},
        "objects_per_image": (1, 1, 1),
        # sqrt(.25 * .25) = .25, sqrt(.4 * .6) = .49, and the whole image
        "box_sizes": (0, 0, 1, 0, 1, 0, 0, 0, 0, 1),
        "skipped": {"box without area": ["b object 1"]},
        "adjusted": {},
        "shards": {
            "records-00000-of-00002.tfrecord": 2,
            "records-00001-of-00002.tfrecord": 1,
        },
        "shard_bytes": {path.name: path.stat().st_size for path in tmp_path.glob("*.tfrecord")},
    }
    assert card.read_card(tmp_path) == written


def test_more_shards_than_images(tmp_path):
    records.write_records([TWO], tmp_path, ["cat", "dog"], shards=3)
    assert len(records.shard_paths(tmp_path)) == 3
    assert [s.image_id for s in records.read_samples(tmp_path)] == ["Zoë 2"]


def test_an_interrupted_set_is_incomplete_and_can_be_written_again(tmp_path):
    def interrupted():
        yield sample("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.write_records(interrupted(), tmp_path, ["cat"], shards=3)
    assert list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match=r"no complete record set.*run it again"):
        card.read_card(tmp_path)
    records.write_records([sample("b")], tmp_path, ["cat"], shards=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "card.json",
        "records-00000-of-00001.tfrecord",
    ]


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("42")
    with pytest.raises(ValueError, match=r"already holds 'thesis.txt'"):
        records.write_records([sample()], tmp_path, ["cat"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_complete_set_is_not_overwritten(tmp_path):
    written = records.write_records([sample()], tmp_path, ["cat"])
    with pytest.raises(ValueError, match="already holds a record set"):
        records.write_records([sample()], tmp_path, ["cat"])
    assert card.read_card(tmp_path) == written


def test_a_missing_shard_is_named(tmp_path):
    records.write_records([sample()], tmp_path, ["cat"], shards=2)
    (tmp_path / "records-00001-of-00002.tfrecord").unlink()
    with pytest.raises(FileNotFoundError, match=r"records-00001-of-00002.tfrecord is missing"):
        records.shard_paths(tmp_path)


@pytest.mark.parametrize("cut", ["at a record's end", "inside a record"])
def test_a_shard_that_is_cut_is_named(tmp_path, cut):
    records.write_records([sample("a"), sample("b")], tmp_path, ["cat"], shards=1)
    path = tmp_path / "records-00000-of-00001.tfrecord"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if cut == "at a record's end" else data[:-3])
    with pytest.raises(ValueError, match=rf"{path.name} has \d+ bytes, but {len(data)} were"):
        next(records.read_samples(tmp_path))


def test_cards_without_sizes_are_read(tmp_path):
    records.write_records([sample("a")], tmp_path, ["cat"], shards=1)
    path = tmp_path / "card.json"
    fields = json.loads(path.read_text())
    del fields["shard_bytes"]
    path.write_text(json.dumps(fields))
    assert card.read_card(tmp_path).num_images == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"labels": ["cat"]}'])
def test_a_broken_card_is_named(tmp_path, text):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ValueError, match=r"card\.json is not a data card"):
        card.read_card(tmp_path)


def test_duplicate_ids_are_refused(tmp_path):
    with pytest.raises(ValueError, match="image id 'a' occurs twice"):
        records.write_records([sample("a"), sample("a")], tmp_path, ["cat"])
    assert not (tmp_path / "card.json").exists()


@pytest.mark.parametrize("label", [0, 3, -1])
def test_label_ids_out_of_range_are_refused(tmp_path, label):
    bad = sample("a", [[0, 0, 1, 1]], [label])
    with pytest.raises(ValueError, match=f"'a' has label id {label}, but .* from 1 to 2"):
        records.write_records([bad], tmp_path, ["cat", "dog"])


def test_an_empty_set_is_refused_with_the_reason(tmp_path):
    notes = card.Notes()
    notes.skipped["image does not decode"] += ["a", "b"]
    with pytest.raises(ValueError, match=r"no images .*: 2 x image does not decode"):
        records.write_records([], tmp_path, ["cat"], notes=notes)
    with pytest.raises(ValueError, match="no classes to write"):
        records.write_records([sample()], tmp_path, [])
    with pytest.raises(ValueError, match=r"`shards` \(=0\) must be at least 1"):
        records.write_records([sample()], tmp_path, ["cat"], shards=0)


def test_card_is_readable_json(tmp_path):
    records.write_records([sample("ü", [[0, 0, 1, 1]], [1])], tmp_path, ["Fuß"])
    text = (tmp_path / "card.json").read_text(encoding="utf-8")
    assert json.loads(text)["labels"] == ["Fuß"]
    assert "Fuß" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shard_bytes": 1}, "'shard_bytes' .=1. must be of type dict"),
        ({"labels": ["cat", 3]}, "'labels'"),
        ({"num_images": 7}, "num_images .=7. is not the sum"),
        ({"max_objects": 2}, "must have max_objects . 1 values"),
        ({"objects_per_image": [2]}, "the sum of objects_per_image is not num_images"),
        ({"shards": {"../a": 1}}, "a shard lies in another folder"),
    ],
)
def test_a_card_with_wrong_values_is_named(tmp_path, fields, message):
    records.write_records([sample("a")], tmp_path, ["cat"], shards=1)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(
        ValueError, match=rf"card\.json is not a data card \(.*{message}.*: write the"
    ):
        card.read_card(tmp_path)


WRONG = {
    "NaN": ([[0, 0, float("nan"), 1]], [1]),
    "infinite": ([[0, 0, float("inf"), 1]], [1]),
    "reversed": ([[0.5, 0, 0.1, 1]], [1]),
    "no area": ([[0.5, 0, 0.5, 1]], [1]),
    "far away": ([[0, 0, 1, 1], [7, 7, 8, 8]], [1, 1]),
    "label 7": ([[0, 0, 1, 1]], [7]),
    "label -1": ([[0, 0, 1, 1]], [-1]),
    "label 2^31": ([[0, 0, 1, 1]], [2**31]),
    "two labels": ([[0, 0, 1, 1]], [1, 1]),
}


def with_wrong_record(folder, case):
    """A record set of five classes whose second record has invalid ground truth."""
    records.write_records([sample("a"), sample("b")], folder, "vwxyz", shards=1)
    path = folder / "records-00000-of-00001.tfrecord"
    boxes, labels = WRONG[case]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for item in (sample("a"), sample("bad", boxes, labels)):
            writer.write(records.serialize(item))
    fields = json.loads((folder / "card.json").read_text())
    fields["shard_bytes"][path.name] = path.stat().st_size
    (folder / "card.json").write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("case", WRONG)
def test_wrong_ground_truth_is_named_where_records_are_read(tmp_path, case):
    path = with_wrong_record(tmp_path, case)
    with pytest.raises(ValueError, match=rf"record 2 of {path} has .*(\[0, 1\]|1 to 5|equal)"):
        list(records.read_samples(tmp_path))
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"image bad in {path} has"):
        list(record_checks.checked_records(str(path), 5))
    with pytest.raises(ValueError, match=r"image 'bad' has"):
        records.write_records([sample("bad", *WRONG[case])], tmp_path / "new", "vwxyz")


def test_right_ground_truth_passes_the_checks_in_the_graph(tmp_path):
    rounded = sample("r", [[-1e-5, 0, 1, 1 + 1e-5]], [5])
    records.write_records([TWO, sample("none"), rounded], tmp_path, "vwxyz", shards=1)
    assert len(list(record_checks.checked_records(records.shard_paths(tmp_path)[0], 5))) == 3


def test_a_damaged_shard_is_named_with_the_record(tmp_path):
    records.write_records([sample("a"), sample("b")], tmp_path, ["cat"], shards=1)
    path = tmp_path / "records-00000-of-00001.tfrecord"
    data = bytearray(path.read_bytes())
    data[-30] ^= 1  # in the second record
    path.write_bytes(data)
    message = rf"{path} is damaged at record 2 of 2 \(corrupted record at \d+.*\): write the record"
    with pytest.raises(ValueError, match=message):
        list(records.read_samples(tmp_path))
    path.write_bytes(bytes(data[: len(data) // 2]) + bytes(len(data) - len(data) // 2))
    with pytest.raises(ValueError, match=f"{path} is damaged at record 2"):
        list(records.read_samples(tmp_path))


def test_names_that_are_not_utf8(tmp_path):
    name = "caf\udce9 1\n2"  # as Python reads the bytes "caf\xe9"
    notes = card.Notes()
    notes.skipped["image does not decode"].append(name)
    written = records.write_records([sample(name)], tmp_path, ["cat"], notes=notes)
    assert card.read_card(tmp_path) == written
    assert [s.image_id for s in records.read_samples(tmp_path)] == ["caf\\xe9 1\n2"]
