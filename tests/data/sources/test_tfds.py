import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssd_keras.data.sources.tfds import _objects_key, open_tfds
from tests.data_sets import encoded, write


def write_tfds(data_dir, name, objects, **more_features):
    """Stores two images in the format of TFDS, the second without objects."""
    image = data_dir / "image.jpg"
    write(image, encoded())
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "image/filename": tfds.features.Text(),
        "image/size": tfds.features.Sequence(np.int32),  # a sequence of numbers before the objects
        "objects": tfds.features.Sequence(
            {
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(names=["cat", "hair drier"]),
                **more_features,
            }
        ),
    }
    examples = [
        {
            "image": str(image),
            "image/filename": "ä 1.jpg",
            "image/size": [20, 40],
            "objects": objects,
        },
        {"image": str(image), "image/filename": "2.jpg", "image/size": [], "objects": []},
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        data_dir=data_dir,
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": list(enumerate(examples))},
        disable_shuffling=True,
    )


def item(box, label, **more):
    return {"bbox": tfds.features.BBox(*map(float, box)), "label": label, **more}


def test_a_prepared_set_by_name(tmp_path):
    objects = [item((0.25, 0.1, 1, 0.75), 1, is_difficult=True)]
    objects.append(item((0, 0, 0, 0.5), 0, is_difficult=False))
    write_tfds(tmp_path, "pets", objects, is_difficult=np.bool_)
    source = open_tfds(tmp_path, "pets", "train")
    first, second = source.samples
    assert (source.labels, source.num_images) == (("cat", "hair drier"), 2)
    assert (first.image_id, first.height, first.width) == ("ä 1", 20, 40)
    np.testing.assert_allclose(first.boxes, [[0.25, 0.1, 1, 0.75]])
    assert first.labels.tolist() == [2]
    assert first.difficult.tolist() == [True]
    assert first.image.startswith(b"\xff\xd8")
    assert second.boxes.shape == (0, 4)
    assert source.notes.skipped == {"box without area": ["ä 1 object 2"]}


def test_crowds_are_dropped(tmp_path):
    objects = [item((0, 0, 1, 1), 1, is_crowd=True), item((0, 0, 1, 0.5), 0, is_crowd=False)]
    write_tfds(tmp_path, "crowds", objects, is_crowd=np.bool_)
    source = open_tfds(tmp_path, "crowds", "train[:1]")
    (sample,) = source.samples
    assert sample.labels.tolist() == [1]
    assert source.notes.skipped == {"crowd region": ["ä 1 object 1"]}


@pytest.mark.parametrize("name", ["voc/2007", "no_such_set"])
def test_nothing_is_downloaded(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"'{name}' is not prepared in .*download_and_prep"):
        open_tfds(tmp_path, name, "train")


def test_a_missing_split_and_a_set_of_another_kind(tmp_path):
    write_tfds(tmp_path, "pets", [])
    with pytest.raises(ValueError, match="Unknown split 'test'"):
        open_tfds(tmp_path, "pets", "test")
    numbers = tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "label": np.int64})
    with pytest.raises(ValueError, match="not a detection dataset"):
        _objects_key({"objects": numbers}, "gref")
    features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="pictures",
        version="1.0.0",
        data_dir=tmp_path,
        features=features,
        split_datasets={"train": [(0, {"image": np.zeros((2, 2, 3), np.uint8)})]},
    )
    with pytest.raises(ValueError, match=r"features \['image'\], but none .* not a detection"):
        open_tfds(tmp_path, "pictures", "train")
