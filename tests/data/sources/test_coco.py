import json

import numpy as np
import pytest

from ssd_keras.data.sources.coco import open_coco
from tests.data_sets import coco_json, encoded, write


def write_coco(
    root, split="train2017", images=((9, "9.jpg"),), annotations=(), folder=None, **more
):
    write(root / f"annotations/instances_{split}.json", coco_json(images, annotations, **more))
    for _, name in images:
        write(root / (folder or split) / name, encoded())


def test_boxes_labels_and_category_ids(tmp_path):
    write_coco(tmp_path, annotations=[(9, 90, [4, 5, 20, 10]), (9, 7, [0.5, 0, 1, 1])])
    source = open_coco(tmp_path, "train2017")
    (sample,) = source.samples
    assert (sample.image_id, sample.height, sample.width) == ("9", 20, 40)
    np.testing.assert_allclose(
        sample.boxes, [[0.25, 0.1, 0.75, 0.6], [0, 0.0125, 0.05, 0.0375]], rtol=1e-6
    )
    assert sample.labels.tolist() == [2, 1]
    assert source.labels == ("cat", "hair drier")
    assert source.category_ids == (7, 90)


def test_crowds_and_bad_boxes_are_dropped_and_named(tmp_path):
    annotations = [
        (9, 7, [0, 0, 9, 9], True),
        (9, 7, [0, 0, 0, 9]),
        (9, 7, [5, 5, -3, 2]),
        (9, 7, [0, 0, float("nan"), 9]),
        (9, 7, [1, 2, 3]),
        (9, 7, None),
        (9, 7, [50, 0, 9, 9]),
        (9, 7, [30, 0, 20, 20]),
    ]
    write_coco(tmp_path, annotations=annotations)
    source = open_coco(tmp_path, "train2017")
    (sample,) = source.samples
    np.testing.assert_allclose(sample.boxes, [[0, 0.75, 1, 1]])
    assert source.notes.skipped == {
        "crowd region": ["annotation 1"],
        "box without area": ["9 object 1", "9 object 2"],
        "box without four numbers": ["9 object 3", "9 object 4", "9 object 5"],
        "box outside the image": ["9 object 6"],
    }
    assert source.notes.adjusted == {"box clipped to the image": ["9 object 7"]}


def test_images_without_objects_are_kept(tmp_path):
    write_coco(tmp_path)
    assert next(open_coco(tmp_path, "train2017").samples).boxes.shape == (0, 4)


def test_trainval35k_from_json_files_and_minival2014_from_a_list(tmp_path):
    write_coco(tmp_path, "train2014", [(1, "COCO_train2014_1.jpg")])
    val = [(2, "COCO_val2014_2.jpg"), (3, "COCO_val2014_3.jpg")]
    write_coco(tmp_path, "val2014", val, [(3, 7, [0, 0, 9, 9])])
    write_coco(tmp_path, "valminusminival2014", val[:1], folder="val2014")
    write(tmp_path / "annotations/minival2014.txt", "COCO_val2014_000000000003\n")
    assert {s.image_id for s in open_coco(tmp_path, "trainval35k").samples} == {"1", "2"}
    minival = list(open_coco(tmp_path, "minival2014").samples)
    assert [(s.image_id, s.labels.tolist()) for s in minival] == [("3", [1])]


@pytest.mark.parametrize(
    ("split", "published"),
    [
        *(("train2014", 82783), ("val2014", 40504), ("train2017", 118287), ("val2017", 5000)),
        *(("minival2014", 5000), ("valminusminival2014", 35504)),
    ],
)
def test_a_split_of_another_size_than_published_is_told(tmp_path, caplog, split, published):
    folder = "val2014" if "minival" in split else None
    write_coco(tmp_path, split, folder=folder)
    open_coco(tmp_path, split)
    assert f"{split} lists 1 images; the published split has {published}" in caplog.text


def test_own_json_file_and_labels(tmp_path):
    write(tmp_path / "my train.json", coco_json([(1, "sub/ä 1.jpg")], [(1, 7, [0, 0, 9, 9])]))
    write(tmp_path / "pictures/sub/ä 1.jpg", encoded())
    labels = {"hair drier": "Föhn", "cat": "Katze"}
    source = open_coco(tmp_path, "my train.json:pictures", labels)
    assert next(source.samples).labels.tolist() == [2]
    assert source.labels == ("Föhn", "Katze")
    assert source.category_ids == (90, 7)


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"instances_train2017\.json does not exist"):
        open_coco(tmp_path, "train2017")
    write_coco(tmp_path, annotations=[(9, 8, [0, 0, 9, 9])])
    with pytest.raises(
        ValueError, match=r"annotation 1 in .* category id 8, which is not declared"
    ):
        open_coco(tmp_path, "train2017")
    write_coco(tmp_path, annotations=[(9, 7, [0, 0, 9, 9])])
    with pytest.raises(ValueError, match=r"annotation 1 in .* class 'cat', which is not among"):
        open_coco(tmp_path, "train2017", {"hair drier": "hair drier"})
    with pytest.raises(ValueError, match="class 'dog' of the labels is not among the categories"):
        open_coco(tmp_path, "train2017", {"cat": "cat", "dog": "dog"})
    (tmp_path / "train2017/9.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"9\.jpg is missing \(1 of 1 such files"):
        open_coco(tmp_path, "train2017")
    write_coco(tmp_path, images=[(9, "../9.jpg")])
    with pytest.raises(ValueError, match=r"'\.\./9\.jpg' points outside"):
        open_coco(tmp_path, "train2017")
    write(tmp_path / "annotations/instances_train2017.json", json.dumps({"images": []}))
    with pytest.raises(ValueError, match=r"has no list 'annotations': it is not .* COCO's"):
        open_coco(tmp_path, "train2017")
    write(tmp_path / "annotations/instances_train2017.json", "{")
    with pytest.raises(ValueError, match="is not JSON"):
        open_coco(tmp_path, "train2017")


def change(tmp_path, **fields):
    """Changes fields of the first entry of "images", "annotations" or "categories"."""
    path = tmp_path / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    for key, values in fields.items():
        content[key][0] |= values
    write(path, json.dumps(content))


def test_annotations_of_images_that_are_not_listed_are_named(tmp_path):
    boxes = [(9, 7, [0, 0, 9, 9]), (8, 7, [0, 0, 9, 9])]
    write_coco(tmp_path, annotations=boxes)
    source = open_coco(tmp_path, "train2017")
    assert next(source.samples).labels.tolist() == [1]
    assert source.notes.skipped == {"annotation of an image that is not listed": ["annotation 2"]}
    write_coco(tmp_path, annotations=boxes[:1])
    change(tmp_path, images={"id": "9"})
    with pytest.raises(
        ValueError, match=r"image_id \(=9\) must equal .* an image, which is written as '9'"
    ):
        open_coco(tmp_path, "train2017")


def test_annotations_of_images_outside_an_id_list_are_ignored(tmp_path):
    val = [(2, "COCO_val2014_2.jpg"), (3, "COCO_val2014_3.jpg")]
    crowds = [(image_id, 7, [0, 0, 9, 9], True) for image_id, _ in val]
    write_coco(tmp_path, "val2014", val, crowds)
    write(tmp_path / "annotations/minival2014.txt", "3\n")
    assert open_coco(tmp_path, "minival2014").notes.skipped == {"crowd region": ["annotation 2"]}


def test_what_repeats_is_refused(tmp_path):
    write_coco(tmp_path, annotations=[(9, 7, [0, 0, 9, 9])] * 2)
    change(tmp_path, annotations={"id": 2})
    with pytest.raises(ValueError, match="has id 2 twice in annotations: ids must be unique"):
        open_coco(tmp_path, "train2017")
    for categories, message in (
        ([(7, "cat"), (7, "dog")], "has id 7 twice in categories"),
        ([(7, "cat"), (8, "cat")], "has the class 'cat' twice"),
    ):
        write_coco(tmp_path, categories=categories)
        with pytest.raises(ValueError, match=message):
            open_coco(tmp_path, "train2017")


@pytest.mark.parametrize("size", [0, -20, None, "twenty", float("nan"), float("inf"), [20]])
def test_without_a_valid_size_the_size_of_the_image_is_used(tmp_path, size):
    write_coco(tmp_path, annotations=[(9, 7, [4, 5, 20, 10])])
    change(tmp_path, images={"height": size})
    (sample,) = open_coco(tmp_path, "train2017").samples
    np.testing.assert_allclose(sample.boxes, [[0.25, 0.1, 0.75, 0.6]])


@pytest.mark.parametrize(
    ("entry", "field", "value"),
    [
        ("images", "id", None),
        ("images", "file_name", None),
        ("annotations", "image_id", [9]),
        ("annotations", "category_id", None),
        ("categories", "id", "7"),
        ("categories", "name", 7),
    ],
)
def test_invalid_fields_are_named(tmp_path, entry, field, value):
    write_coco(tmp_path, annotations=[(9, 7, [0, 0, 9, 9])])
    change(tmp_path, **{entry: {field: value}})
    with pytest.raises(ValueError, match=rf"json has no valid '{field}' \(=.*\) in {entry}\[0\]"):
        open_coco(tmp_path, "train2017")


@pytest.mark.parametrize("content", ["[]", "null", '{"images": [], "annotations": null}'])
def test_other_json_is_refused(tmp_path, content):
    write(tmp_path / "annotations/instances_train2017.json", content)
    with pytest.raises(ValueError, match=r"train2017\.json has no list '(images|annotations)'"):
        open_coco(tmp_path, "train2017")


def test_a_byte_order_mark_is_read_and_another_encoding_named(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "annotations/instances_train2017.json"
    text = path.read_text().replace('"cat"', '"Föhn"')
    write(path, text.encode("utf-8-sig"))
    assert open_coco(tmp_path, "train2017").labels[0] == "Föhn"
    write(path, text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"train2017\.json is not UTF-8 text .*save it as UTF-8"):
        open_coco(tmp_path, "train2017")


def test_splits_with_other_categories_are_refused(tmp_path):
    write_coco(tmp_path, "train2017")
    write_coco(tmp_path, "val2017", [(2, "2.jpg")], categories=[(1, "person")])
    with pytest.raises(ValueError, match="other categories"):
        open_coco(tmp_path, "train2017+val2017")


@pytest.mark.parametrize("root", ["cat", "pets"])
def test_roboflows_root_category_is_no_class(tmp_path, root):
    write_coco(tmp_path, annotations=[(9, 1, [0, 0, 9, 9])], categories=((0, root), (1, "cat")))
    path = tmp_path / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["categories"][0]["supercategory"] = "none"
    content["categories"][1]["supercategory"] = root
    write(path, json.dumps(content))
    source = open_coco(tmp_path, "train2017")
    assert (source.labels, source.category_ids) == (("cat",), (1,))
    assert next(source.samples).labels.tolist() == [1]
    assert list(source.notes.skipped.values()) == [[root]]


def test_splits_with_equal_image_ids_are_named(tmp_path):
    write_coco(tmp_path, "a")
    write_coco(tmp_path, "b")
    with pytest.raises(
        ValueError, match=r"instances_b\.json has an image with id 9, .*--records=a,b"
    ):
        open_coco(tmp_path, "a+b")


def test_file_names_with_backslashes(tmp_path):
    write_coco(tmp_path, images=[(9, "sub/9.jpg")])
    change(tmp_path, images={"file_name": "sub\\9.jpg"})
    assert next(open_coco(tmp_path, "train2017").samples).image_id == "9"
    change(tmp_path, images={"file_name": "..\\9.jpg"})
    with pytest.raises(ValueError, match="points outside"):
        open_coco(tmp_path, "train2017")
