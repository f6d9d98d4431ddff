"""CSV tables, and exports of CVAT and Label Studio."""

import json

import numpy as np
import pytest

from ssd_keras.data.prepare import open_source
from ssd_keras.data.sources.csv_table import open_csv
from ssd_keras.data.sources.cvat import open_cvat
from ssd_keras.data.sources.label_studio import open_label_studio
from tests.data_sets import encoded, write

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def samples_by_id(source):
    return {sample.image_id: sample for sample in source.samples}


def csv_folder(folder, rows, header=HEADER, images=("a.jpg", "b.jpg")):
    write(folder / "train.csv", header + "\n".join(rows))
    for name in images:
        write(folder / "images" / name, encoded())  # 40 pixels wide, 20 high
    return folder


def test_csv_by_hand(tmp_path):
    rows = ["a.jpg,40,20,cat,4,5,20,10", "a.jpg,40,20,dog,0,0,40,20", "b.jpg,40,20,,,,,"]
    source = open_csv(csv_folder(tmp_path, rows, images=("a.jpg", "b.jpg", "c.jpg")), "train.csv")
    assert (source.labels, source.num_images) == (("cat", "dog"), 2)
    found = samples_by_id(source)
    np.testing.assert_allclose(
        found["images/a.jpg"].boxes, [[0.25, 0.1, 0.5, 0.5], [0, 0, 1, 1]], rtol=1e-6
    )
    assert found["images/a.jpg"].labels.tolist() == [1, 2]
    assert found["images/b.jpg"].boxes.shape == (0, 4)
    assert source.notes.skipped == {"image without annotation": ["images/c.jpg"]}


def test_csv_of_another_order_without_sizes_and_with_given_labels(tmp_path):
    header = "class, xmin, ymin, xmax, ymax, filename, score\n"
    csv_folder(tmp_path, ["dog,4,5,20,10,a.jpg,1"], header, images=("a.jpg",))
    source = open_csv(tmp_path, "train.csv:images", {"cat": "Cat", "dog": "Dog"})
    assert source.labels == ("Cat", "Dog")
    (sample,) = source.samples
    assert (sample.image_id, sample.labels.tolist()) == ("a.jpg", [2])
    np.testing.assert_allclose(sample.boxes, [[0.25, 0.1, 0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["x.jpg,40,20,cat,4,5,20,10"], r"x.jpg is missing: line 2 of .*train.csv names it"),
        (["a.jpg,40,20,cat,4,5,20,10", "a.jpg,40,30,cat,4,5,20,10"], "line 3 .* correct one"),
        (["../a.jpg,40,20,cat,4,5,20,10"], "points outside"),
        ([",40,20,cat,4,5,20,10"], "line 2 .* has no filename"),
        (["a.jpg,40,20," + "c" * 200_000], r"train.csv is not a table \(field larger than"),
        (["a.jpg,40,20,,,,,"], "has no object: give the class names"),
        ([], "has no annotation of an image"),
    ],
)
def test_csv_says_what_is_wrong(tmp_path, rows, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_csv(csv_folder(tmp_path, rows), "train.csv")


def test_csv_needs_its_columns_and_files(tmp_path):
    csv_folder(tmp_path, [], "image,label,xmin,ymin,xmax,ymax\n")
    with pytest.raises(ValueError, match="has no column filename, class: its first row must be"):
        open_csv(tmp_path, "train.csv")
    with pytest.raises(FileNotFoundError, match=r"test.csv is missing: give --splits"):
        open_csv(tmp_path, "test.csv")
    with pytest.raises(FileNotFoundError, match="pictures is missing: it must be the folder"):
        open_csv(tmp_path, "train.csv:pictures")
    with pytest.raises(ValueError, match="must name one file"):
        open_csv(tmp_path, "a.csv+b.csv")
    with pytest.raises(ValueError, match="'bird', which is not among the 1 class names"):
        open_csv(csv_folder(tmp_path, ["a.jpg,40,20,bird,4,5,20,10"]), "train.csv", {"cat": "cat"})


def test_a_file_name_in_two_folders_is_ambiguous(tmp_path):
    csv_folder(tmp_path, ["a.jpg,40,20,cat,4,5,20,10"])
    write(tmp_path / "more" / "a.jpg", encoded())
    with pytest.raises(ValueError, match="has 2 files of this name"):
        open_csv(tmp_path, "train.csv")


def test_a_box_without_numbers_is_noted(tmp_path):
    source = open_csv(csv_folder(tmp_path, ["a.jpg,40,20,cat,4,five,20,10"]), "train.csv")
    assert [len(sample.boxes) for sample in source.samples] == [0]
    assert "box without four numbers" in source.notes.skipped


CVAT = """<annotations><version>1.1</version>
<meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task>
</meta>
<image id="0" name="a.jpg" width="40" height="20">
  <box label="cat" xtl="4" ytl="5" xbr="20" ybr="10" occluded="0"/>
  <box label="cat" xtl="10" ytl="8" xbr="20" ybr="12" rotation="90"/>
  <polygon label="dog" points="1,2;11,2;6,12"/>
  <points label="dog" points="1,2"/>
</image>
<image id="1" name="sub/b.jpg" width="40" height="20"></image>
</annotations>"""


def test_cvat_by_hand(tmp_path):
    write(tmp_path / "annotations.xml", CVAT)
    for name in ("images/a.jpg", "images/sub/b.jpg"):
        write(tmp_path / name, encoded())
    source = open_cvat(tmp_path)
    assert source.labels == ("dog", "cat")
    found = samples_by_id(source)
    pixels = found["images/a.jpg"].boxes * [20, 40, 20, 40]
    # The box of 10 x 4 with center (15, 10), rotated by 90 degrees, is 4 wide and 10 high.
    np.testing.assert_allclose(pixels, [[5, 4, 10, 20], [5, 13, 15, 17], [2, 1, 12, 11]], rtol=1e-5)
    assert found["images/a.jpg"].labels.tolist() == [2, 2, 1]
    assert len(found["images/sub/b.jpg"].boxes) == 0
    assert source.notes.skipped == {"shape that is not a box (points)": ["a.jpg"]}
    assert list(source.notes.adjusted.values()) == [["a.jpg", "a.jpg"]]


def test_cvat_refuses_other_files(tmp_path):
    write(tmp_path / "annotations.xml", "<annotations><track/></annotations>")
    with pytest.raises(ValueError, match=r"CVAT for images 1\.1"):
        open_cvat(tmp_path)
    write(tmp_path / "annotations.xml", "<annotations>")
    with pytest.raises(ValueError, match="not valid XML"):
        open_cvat(tmp_path)


def rectangle(text, x, y, width, height, rotation=0):
    box = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    return {
        "original_width": 40,
        "original_height": 20,
        "type": "rectanglelabels",
        "value": {**box, "rectanglelabels": [text]},
    }


TASKS = [
    {
        "id": 7,
        "data": {"image": "/data/upload/3/0a1b2c3d-a%20cat.jpg"},
        "annotations": [
            {"was_cancelled": True, "result": [rectangle("dog", 0, 0, 100, 100)]},
            {"result": [rectangle("cat", 10, 25, 40, 25), rectangle("dog", 50, 0, 10, 50, 90)]},
            {"result": []},
        ],
    },
    {
        "id": 8,
        "data": {"image": "/data/local-files/?d=sets/b.jpg"},
        "annotations": [{"result": []}],
    },
    {"id": 9, "data": {"image": "c.jpg"}, "annotations": []},
]


def test_label_studio_by_hand(tmp_path):
    write(tmp_path / "project.json", json.dumps(TASKS))
    for name in ("a cat.jpg", "b.jpg", "c.jpg"):
        write(tmp_path / name, encoded())
    source = open_label_studio(tmp_path, "project.json")
    assert source.labels == ("cat", "dog")
    found = samples_by_id(source)
    assert set(found) == {"a cat.jpg", "b.jpg"}
    pixels = found["a cat.jpg"].boxes * [20, 40, 20, 40]
    # 10 % of 40 pixels are 4 and 50 % of 20 are 10. Rotated about (20, 0), the box is on the left.
    np.testing.assert_allclose(pixels, [[5, 4, 10, 20], [0, 10, 4, 20]], atol=1e-4)
    assert source.notes.adjusted["first of several annotations"] == ["a cat.jpg"]
    assert source.notes.adjusted["rotated box read as its bounding box"] == ["a cat.jpg"]
    assert source.notes.skipped["image without annotation"] == ["c.jpg"]


def test_label_studio_json_min(tmp_path):
    region = rectangle("cat", 10, 25, 40, 25)
    region |= region.pop("value")
    tasks = [{"id": 1, "image": "a.jpg", "label": [region], "annotator": 1}]
    write(tmp_path / "project.json", json.dumps(tasks))
    write(tmp_path / "a.jpg", encoded())
    (sample,) = open_label_studio(tmp_path, "project.json").samples
    np.testing.assert_allclose(sample.boxes, [[0.25, 0.1, 0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a list of tasks"),
        ("[", "is not JSON"),
        ('[{"id": 1, "data": {"text": "x"}}]', "task 1 in .* has no image"),
        ('[{"data": "x.jpg"}]', "project.json is not JSON or JSON-MIN .*: export it .* again"),
        ('[{"data": {"i": "x.jpg"}, "annotations": null}]', "is not JSON or JSON-MIN"),
        ('[{"data": {"i": "x.jpg"}, "annotations": ["x"]}]', "is not JSON or JSON-MIN"),
        ('[{"data": {"i": "x.jpg"}, "annotations": [{"result": ["x"]}]}]', "is not JSON or"),
        ('[{"data": {"i": "x.jpg"}, "annotations": [{"result": [{"value": null}]}]}]', "is not"),
    ],
)
def test_label_studio_refuses_other_files(tmp_path, content, message):
    write(tmp_path / "project.json", content)
    with pytest.raises(ValueError, match=message):
        open_label_studio(tmp_path, "project.json")


def test_prepare_opens_them(tmp_path):
    csv_folder(tmp_path, ["a.jpg,40,20,cat,4,5,20,10"])
    write(tmp_path / "annotations.xml", CVAT.replace("sub/b.jpg", "b.jpg"))
    tasks = [
        {"data": {"image": "a.jpg"}, "annotations": [{"result": [rectangle("x", 0, 0, 9, 9)]}]}
    ]
    write(tmp_path / "project.json", json.dumps(tasks))
    path = str(tmp_path)
    assert open_source("csv", path=path, splits="train.csv").labels == ("cat",)
    assert open_source("cvat", path=path).labels == ("dog", "cat")
    assert open_source("label_studio", path=path, splits="project.json").labels == ("x",)
    with pytest.raises(ValueError, match=r"--splits is missing: --source=csv"):
        open_source("csv", path=path)
