import numpy as np
import pytest

from ssd_keras.data.sources.voc import open_ilsvrc_det, open_voc
from tests.data_sets import encoded, voc_xml, write, write_voc

BOMB = (
    '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]>'
    "<annotation><object><name>&c;</name></object></annotation>"
)
CAT = ("cat", 4, 5, 40, 20)


def test_boxes_are_divided_without_a_shift(tmp_path):
    write_voc(tmp_path, {"a": voc_xml([("dog", 4, 5, 30, 20, True), ("cat", 0.5, 1, 1.5, 10)])})
    source = open_voc(tmp_path, "train")
    (sample,) = source.samples
    assert source.labels == ("cat", "dog")
    assert (sample.image_id, sample.height, sample.width) == ("a", 20, 40)
    np.testing.assert_allclose(
        sample.boxes, [[0.25, 0.1, 1, 0.75], [0.05, 0.0125, 0.5, 0.0375]], rtol=1e-6
    )
    assert sample.labels.tolist() == [2, 1]
    assert sample.difficult.tolist() == [True, False]
    assert sample.image == encoded()
    assert not source.notes.skipped
    assert not source.notes.adjusted


def test_a_union_of_years_in_a_devkit(tmp_path):
    write_voc(tmp_path / "VOC2007", {"000001": voc_xml([CAT])}, "trainval")
    write_voc(tmp_path / "VOC2012", {"2008_1": voc_xml([("dog", 1, 1, 9, 9)])}, "trainval")
    source = open_voc(tmp_path, "2007:trainval+2012:trainval")
    assert {s.image_id for s in source.samples} == {"000001", "2008_1"}
    assert (source.labels, source.num_images) == (("cat", "dog"), 2)


def test_folders_without_lists_and_with_a_label_file(tmp_path):
    write_voc(tmp_path / "mine", {"b": voc_xml([CAT]), "a": voc_xml([])})
    source = open_voc(tmp_path / "mine", "", {"dog": "Hund", "cat": "Katze"})
    samples = {s.image_id: s for s in source.samples}
    assert {name: s.labels.tolist() for name, s in samples.items()} == {"a": [], "b": [2]}
    assert samples["a"].boxes.shape == (0, 4)
    assert source.labels == ("Hund", "Katze")
    assert {s.image_id for s in open_voc(tmp_path, "mine:train").samples} == {"a", "b"}


def test_classes_are_those_of_all_annotations_not_of_one_split(tmp_path):
    write_voc(tmp_path, {"a": voc_xml([("zebra", 1, 1, 9, 9)])}, "train")
    write_voc(tmp_path, {"b": voc_xml([("ant", 1, 1, 9, 9)])}, "val")
    assert (
        open_voc(tmp_path, "train").labels == open_voc(tmp_path, "val").labels == ("ant", "zebra")
    )


def test_bad_boxes_are_dropped_and_named(tmp_path):
    objects = [
        CAT,
        ("cat", 4, 5, 4, 20),
        ("cat", 30, 5, 4, 20),
        ("cat", "nan", 5, 4, 20),
        ("cat", "", 5, 4, 20),
        ("cat", 41, 1, 50, 9),
        ("cat", -4, -5, 44, 10),
    ]
    write_voc(tmp_path, {"a": voc_xml(objects)})
    source = open_voc(tmp_path, "train")
    (sample,) = source.samples
    np.testing.assert_allclose(sample.boxes, [[0.25, 0.1, 1, 1], [0, 0, 0.5, 1]])
    assert source.notes.skipped == {
        "box without area": ["a object 2", "a object 3"],
        "box without four numbers": ["a object 4", "a object 5"],
        "box outside the image": ["a object 6"],
    }
    assert source.notes.adjusted == {"box clipped to the image": ["a object 7"]}


def test_an_object_without_a_box(tmp_path):
    xml = "<annotation><object><name>cat</name></object></annotation>"
    write_voc(tmp_path, {"a": xml})
    source = open_voc(tmp_path, "train")
    assert next(source.samples).labels.tolist() == []
    assert source.notes.skipped == {"box without four numbers": ["a object 1"]}


@pytest.mark.parametrize(
    "xml",
    [
        *(BOMB, "<annotation><object>", "", "\x00"),
        *('<?xml version="1.0" encoding="gb2312"?><a/>', '<?xml version="1.0" encoding="no"?><a/>'),
    ],
)
def test_hostile_and_broken_xml_is_skipped(tmp_path, xml):
    write_voc(tmp_path, {"bad": xml, "good": voc_xml([CAT])})
    source = open_voc(tmp_path, "train")
    assert [s.image_id for s in source.samples] == ["good"]
    assert source.notes.skipped == {"annotation XML is malformed or declares entities": ["bad"]}
    assert source.labels == ("cat",)


def test_images_that_do_not_decode_are_skipped(tmp_path):
    write_voc(tmp_path, {"bad": voc_xml([CAT]), "good": voc_xml([CAT])})
    write(tmp_path / "JPEGImages/bad.jpg", encoded()[:-30])
    source = open_voc(tmp_path, "train")
    assert [s.image_id for s in source.samples] == ["good"]
    assert source.notes.skipped == {"image does not decode": ["bad"]}


def test_boxes_go_by_the_annotated_size(tmp_path):
    """As in the original. This is for images that were resized after annotation."""
    write_voc(tmp_path, {"a": voc_xml([("cat", 8, 10, 80, 40)], size=(80, 40))})
    source = open_voc(tmp_path, "train")
    sample = next(source.samples)
    assert (sample.height, sample.width) == (20, 40)
    np.testing.assert_allclose(sample.boxes, [[0.25, 0.1, 1, 1]])
    assert source.notes.adjusted == {"image size differs from annotation": ["a"]}


@pytest.mark.parametrize("size", [None, (0, 0), ("inf", 20), ("wide", 20)])
def test_without_an_annotated_size_the_size_of_the_image_is_used(tmp_path, size):
    write_voc(tmp_path, {"a": voc_xml([CAT], size=size)})
    np.testing.assert_allclose(next(open_voc(tmp_path, "train").samples).boxes, [[0.25, 0.1, 1, 1]])


def test_an_image_of_another_shape_than_annotated_is_skipped(tmp_path):
    write_voc(tmp_path, {"a": voc_xml([CAT], size=(20, 40))})
    source = open_voc(tmp_path, "train")
    assert list(source.samples) == []
    assert source.notes.skipped == {"image shape differs from annotation": ["a"]}


@pytest.mark.parametrize("suffix", [".jpeg", ".JPG"])
def test_unicode_spaces_and_other_suffixes(tmp_path, suffix):
    name = "été à la plage (1)"
    write_voc(tmp_path, {name: voc_xml([("chaise longue", 1, 1, 9, 9)])})
    (tmp_path / "JPEGImages" / f"{name}.jpg").rename(tmp_path / "JPEGImages" / f"{name}{suffix}")
    source = open_voc(tmp_path, "train")
    assert [s.image_id for s in source.samples] == [name]
    assert source.labels == ("chaise longue",)


def test_undeclared_classes_are_named(tmp_path):
    write_voc(tmp_path, {"a": voc_xml([("lynx", 1, 1, 9, 9)])})
    source = open_voc(tmp_path, "train", {"cat": "cat"})
    with pytest.raises(ValueError, match=r"a\.xml has an object of class 'lynx', .* 1 class names"):
        next(source.samples)


def test_names_that_leave_the_folder_are_refused(tmp_path):
    write_voc(tmp_path / "set", {"a": voc_xml([CAT])})
    write(tmp_path / "set/ImageSets/Main/train.txt", "../../secret\n")
    with pytest.raises(ValueError, match=r"'\.\./\.\./secret' points outside"):
        open_voc(tmp_path / "set", "train")


def test_an_object_without_a_name_is_no_class(tmp_path):
    write_voc(tmp_path, {"a": voc_xml([CAT, ("", 1, 1, 9, 9)])})
    source = open_voc(tmp_path, "train")
    assert source.labels == ("cat",)
    with pytest.raises(ValueError, match=r"a\.xml has an object of class ''"):
        next(source.samples)


def test_images_without_annotation_are_named(tmp_path):
    write_voc(tmp_path, {"a": voc_xml([CAT])})
    write(tmp_path / "JPEGImages/b.jpg", encoded())
    assert open_voc(tmp_path, "").notes.skipped == {"image without annotation": ["b"]}


def test_a_list_that_names_files_is_blamed(tmp_path):
    write_voc(tmp_path, {"a": voc_xml([CAT])})
    write(tmp_path / "ImageSets/Main/train.txt", "a.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"a\.jpg\.xml is missing .*or correct the list"):
        open_voc(tmp_path, "train")
    write(tmp_path / "ImageSets/Main/train.txt", "Föhn\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.txt is not UTF-8 text"):
        open_voc(tmp_path, "train")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("Annotations/b.xml", r"b\.xml is missing \(1 of 2 such files"),
        ("JPEGImages/b.jpg", r"b\.jpg is missing \(1 of 2 such files"),
        ("ImageSets/Main/train.txt", r"train\.txt does not exist"),
    ],
)
def test_missing_files_are_named(tmp_path, missing, message):
    write_voc(tmp_path, {"a": voc_xml([CAT]), "b": voc_xml([CAT])})
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        open_voc(tmp_path, "train")


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a VOC folder"):
        open_voc(tmp_path, "2007:trainval")


@pytest.mark.parametrize(
    ("split", "published"),
    [
        *(("2007:train", 2501), ("2007:val", 2510), ("2007:trainval", 5011), ("2007:test", 4952)),
        *(("2012:train", 5717), ("2012:val", 5823), ("2012:trainval", 11540)),
    ],
)
def test_a_split_of_another_size_than_published_is_told(tmp_path, caplog, split, published):
    write_voc(tmp_path / f"VOC{split[:4]}", {"000001": voc_xml([CAT])}, split[5:])
    open_voc(tmp_path, split)
    assert f"VOC{split} lists 1 images; the published split has {published}" in caplog.text


def test_ilsvrc_det(tmp_path, caplog):
    """Images without annotation are left out, as in the original."""
    names = {"train": ["ILSVRC2014_train_0000/a", "ILSVRC2013_train_extra0/b"]}
    names["val"] = ["ILSVRC2012_val_00000001"]
    for subset, images in names.items():
        for image in images:
            write(tmp_path / "Data/DET" / subset / f"{image}.JPEG", encoded())
    write(tmp_path / "ImageSets/DET/train.txt", "".join(f"{n} 1\n" for n in names["train"]))
    write(tmp_path / "ImageSets/DET/val1.txt", f"{names['val'][0]} 7\n")
    xml = voc_xml([("n02691156", 4, 5, 40, 20)])
    write(tmp_path / "Annotations/DET/train/ILSVRC2014_train_0000/a.xml", xml)
    write(tmp_path / "Annotations/DET/val/ILSVRC2012_val_00000001.xml", xml)
    labels = {"n02672831": "accordion", "n02691156": "airplane"}
    write(tmp_path / "ImageSets/DET/val.txt", f"{names['val'][0]} 7\n")
    assert open_ilsvrc_det(tmp_path, "val", labels).num_images == 1
    source = open_ilsvrc_det(tmp_path, "train+val1", labels)
    samples = {s.image_id: s.labels.tolist() for s in source.samples}
    assert samples == {names["train"][0]: [2], names["val"][0]: [2]}
    assert source.labels == ("accordion", "airplane")
    assert source.notes.skipped == {"image without annotation": [names["train"][1]]}
    assert "DET:train lists 2 images; the published split has 456567" in caplog.text
    assert "DET:val lists 1 images; the published split has 20121" in caplog.text


def test_the_devkits_list_of_one_class_is_refused(tmp_path):
    write_voc(tmp_path, {"1": voc_xml([("cat", 1, 1, 9, 9)])})
    write(tmp_path / "ImageSets/Main/cat_train.txt", "1 -1\n2  1\n")
    with pytest.raises(
        ValueError,
        match=r"cat_train\.txt .* list of one class, .* use the list of all images, train",
    ):
        open_voc(tmp_path, "cat_train")


def test_a_devkit_without_splits_lists_its_splits(tmp_path):
    write_voc(tmp_path / "VOC2007", {"a": voc_xml([])}, split="trainval")
    write_voc(tmp_path / "VOC2012", {"b": voc_xml([])}, split="train")
    write(tmp_path / "VOC2012/ImageSets/Main/cat_train.txt", "b -1")
    with pytest.raises(FileNotFoundError, match=r"splits 2007:trainval, 2012:train: give --spl"):
        open_voc(tmp_path, "")
    with pytest.raises(FileNotFoundError, match=r"VOC2009 is not a VOC folder, but"):
        open_voc(tmp_path, "2009:train")


def test_an_empty_folder_says_where_no_annotation_is(tmp_path):
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Annotations has no annotation, a file NAME.xml"):
        open_voc(tmp_path, "")
    with pytest.raises(FileNotFoundError, match=r"nothing/Annotations is missing: .* VOC folder$"):
        open_voc(tmp_path / "nothing", "")


def test_annotations_without_objects_need_class_names(tmp_path):
    write_voc(tmp_path, {"a": voc_xml([])})
    with pytest.raises(ValueError, match=r"no object was found .*Annotations: give the class"):
        open_voc(tmp_path, "train")
    assert open_voc(tmp_path, "train", {"cat": "cat"}).num_images == 1
