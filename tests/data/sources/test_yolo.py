import numpy as np
import pytest
from PIL import Image

from ssd_keras.data.sources.yolo import open_yolo
from tests.data_sets import encoded, write


def write_yolo(root, lines="1 0.5 0.25 0.2 0.5\n", images="images", labels="labels"):
    write(root / images / "a b.jpg", encoded())
    write(root / labels / "a b.txt", lines)
    write(root / "classes.txt", "cat\ndog\n")


@pytest.mark.parametrize(
    ("images", "labels", "split"),
    [
        ("images", "labels", ""),
        ("images/train", "labels/train", "train"),
        ("train/images", "train/labels", "train"),
    ],
)
def test_layouts(tmp_path, images, labels, split):
    write_yolo(tmp_path, images=images, labels=labels)
    write(tmp_path / images / "empty.png", encoded(image_format="PNG"))
    source = open_yolo(tmp_path, split)
    first, second = sorted(source.samples, key=lambda sample: sample.image_id)
    np.testing.assert_allclose(first.boxes, [[0, 0.4, 0.5, 0.6]], atol=1e-6)
    assert (first.image_id, first.labels.tolist()) == ("a b", [2])
    assert (second.image_id, second.labels.tolist()) == ("empty", [])
    assert (source.labels, source.num_images) == (("cat", "dog"), 2)


@pytest.mark.parametrize(
    "text",
    [
        "nc: 2\nnames: [cat, 'guinea pig']\n",
        'names: ["cat",\n  "guinea pig"]\nnc: 2',
        "train: ../train\nnames:\n  0: cat\n  1: guinea pig\nnc: 2\n",
        "names:\n- cat\n- 'guinea pig'\n",
        "names:\n  0: cat  # pet\n\n  # another\n  1: guinea pig\n",
        "names:\n  1: guinea pig\n  0: cat\n",
        "names: {0: cat, 1: 'guinea pig'}\n",
    ],
)
def test_names_of_data_yaml(tmp_path, text):
    write_yolo(tmp_path)
    (tmp_path / "classes.txt").unlink()
    write(tmp_path / "data.yaml", text)
    assert open_yolo(tmp_path).labels == ("cat", "guinea pig")


def test_words_that_mean_something_to_yaml_are_names_too(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "classes.txt").unlink()
    write(tmp_path / "data.yaml", "names: ['a, b', no, 007]\n")
    assert open_yolo(tmp_path).labels == ("a, b", "no", "007")


def test_label_files_without_image_are_named(tmp_path):
    write_yolo(tmp_path)
    write(tmp_path / "labels/lost.txt", "")
    write(tmp_path / "labels/classes.txt", "cat\n")
    assert open_yolo(tmp_path).notes.skipped == {"label file without image": ["lost"]}


def test_names_that_cannot_be_found(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"classes\.txt is missing, and so is data\.yaml"):
        open_yolo(tmp_path)
    for text in ("names: many\n", "names: []\n", "names: [[a], b]\n", "nc: 2\n", "- cat\n"):
        write(tmp_path / "data.yaml", text)
        with pytest.raises(ValueError, match=r"data\.yaml has no list `names`"):
            open_yolo(tmp_path)
    for text, message in (
        ("names: {1: cat, 2: dog}\n", "with the keys 1, 2: they must be .* 0, 1, 2"),
        ("names: [cat, dog, cat]\n", "has the class 'cat' twice"),
        ("names: [cat\n", r"data\.yaml is not YAML"),
        ("names: [Föhn]\n".encode("latin-1"), r"data\.yaml is not UTF-8 text"),
    ):
        write(tmp_path / "data.yaml", text)
        with pytest.raises(ValueError, match=message):
            open_yolo(tmp_path)
    assert open_yolo(tmp_path, labels={"x": "x", "y": "y"}).labels == ("x", "y")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 .5 .5 .1 .1", r"line 1 of .*a b\.txt has class number 2, but there are 2 class names"),
        ("-1 .5 .5 .1 .1", "has class number -1"),
        ("0.5 .5 .5 .1 .1", "has class number 0.5"),
        ("1 .5 .5 .1", r"'1 \.5 \.5 \.1', not `class x y width height`"),
        ("1 .5 .5 .1 .1 .9 17", "not"),  # from a tracker, with confidence and track id
        ("cat .5 .5 .1 .1", "not `class x y width height`"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    write_yolo(tmp_path, line)
    with pytest.raises(ValueError, match=message):
        next(open_yolo(tmp_path).samples)


def test_images_are_upright(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    write_yolo(tmp_path)
    write(tmp_path / "images/a b.jpg", encoded(exif=tags))
    sample = next(open_yolo(tmp_path).samples)
    assert (sample.height, sample.width) == (40, 20)
    np.testing.assert_allclose(sample.boxes, [[0, 0.4, 0.5, 0.6]], atol=1e-6)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a YOLO folder"):
        open_yolo(tmp_path)


@pytest.mark.parametrize("row", ["1 .4 0 .6 0 .6 .5 .4 .5", "1 .4 .5 .5 0 .6 .2"])
def test_polygons_are_read_as_their_boxes(tmp_path, row):
    write_yolo(tmp_path, f"{row}\n0 .5 .5 .2 .2\n")
    source = open_yolo(tmp_path)
    (sample,) = source.samples
    np.testing.assert_allclose(sample.boxes, [[0, 0.4, 0.5, 0.6], [0.4, 0.4, 0.6, 0.6]], atol=1e-6)
    assert source.notes.adjusted == {"polygons read as bounding boxes": ["a b"]}
    write(tmp_path / "data.yaml", "kpt_shape: [2, 2]\nnames: [cat, dog]\n")
    with pytest.raises(ValueError, match="kpt_shape: labels with key points are not supported"):
        open_yolo(tmp_path)


def test_a_split_that_is_left_out_is_asked_for(tmp_path):
    write_yolo(tmp_path, images="train/images", labels="train/labels")
    with pytest.raises(FileNotFoundError, match="give a split, such as --splits=train"):
        open_yolo(tmp_path)
    with pytest.raises(FileNotFoundError, match="one split at a time"):
        open_yolo(tmp_path, "train+valid")


def test_a_huge_yaml_is_refused_by_its_size(tmp_path):
    """PyYAML would take minutes for a million names."""
    write(tmp_path / "images/a.jpg", encoded())
    write(tmp_path / "labels/a.txt", "")
    write(tmp_path / "data.yaml", "names: [" + ", ".join(f"c{k}" for k in range(10**6)) + "]")
    with pytest.raises(ValueError, match=r"data\.yaml has 8888897 bytes, but may have 1000000"):
        open_yolo(tmp_path)


def test_folders_without_images_or_without_labels_are_named(tmp_path):
    """Images without any label file would all be images without objects."""
    write_yolo(tmp_path)
    for text in (tmp_path / "labels").glob("*.txt"):
        text.rename(text.with_name("another.txt"))
    with pytest.raises(FileNotFoundError, match=r"labels has no label file of an image, NAME\.txt"):
        open_yolo(tmp_path)
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    with pytest.raises(FileNotFoundError, match=r"images has no image \(.*\.jpg"):
        open_yolo(tmp_path)
