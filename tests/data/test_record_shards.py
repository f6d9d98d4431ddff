import json

import pytest
import tensorflow as tf

from ssd_keras.data.card import Notes, read_card
from ssd_keras.data.prepare import open_source, prepare_records
from ssd_keras.data.record_shards import merge_shards, prepare_shard, shard_writer
from ssd_keras.data.records import read_samples, serialize
from ssd_keras.shards import shard_of
from tests.cli import in_process, loaded_command
from tests.data_sets import coco_json, encoded, noise, voc_xml, write, write_voc

NAMES = [f"im{k}" for k in range(12)]


@pytest.fixture
def voc(tmp_path):
    """Twelve images; one is broken, one has a box without area, and one has no annotation."""
    box = ("cat", 4, 5, 40, 20)
    xml = {name: voc_xml([box, ("dog", 1, 1, 9, 9)]) for name in NAMES}
    xml["im3"] = voc_xml([box, ("cat", 5, 5, 5, 9)])
    write_voc(tmp_path / "set", xml)
    write(tmp_path / "set/JPEGImages/im5.jpg", b"no image")
    write(tmp_path / "set/JPEGImages/extra.jpg", encoded())
    return tmp_path / "set"


def opened(folder, splits=""):
    return open_source("voc", path=str(folder), splits=splits)


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_jobs_and_a_merge_give_the_files_of_one_job(voc, tmp_path):
    whole = prepare_records(opened(voc), tmp_path / "one", 3)
    for k in (2, 0, 1):  # in any order
        prepare_shard(opened(voc), tmp_path / "many", k, 3)
    assert merge_shards(tmp_path / "many") == whole
    assert content(tmp_path / "many") == content(tmp_path / "one")
    assert sorted(content(tmp_path / "one")) == ["card.json", *sorted(whole.shards)]
    assert whole.skipped == {
        "box without area": ["im3 object 2"],
        "image does not decode": ["im5"],
        "image without annotation": ["extra"],
    }
    assert (whole.num_images, whole.num_objects) == (11, 21)
    assert whole.objects_per_image == (0, 1, 10)


def test_the_name_of_an_image_says_its_shard(voc, tmp_path):
    card = prepare_records(opened(voc), tmp_path / "one", 3)
    expected = [[n for n in NAMES if n != "im5" and shard_of(n, 3) == k] for k in range(3)]
    assert list(card.shards.values()) == [len(names) for names in expected]
    found = [sample.image_id for sample in read_samples(tmp_path / "one")]
    assert sorted(found[: len(expected[0])]) == sorted(expected[0])


def test_more_jobs_than_images(tmp_path):
    source = open_source("shapes", num_images=2)
    whole = prepare_records(source, tmp_path / "one", 5)
    cards = [prepare_shard(source, tmp_path / "many", k, 5) for k in range(5)]
    assert sorted(card.num_images for card in cards) == [0, 0, 0, 1, 1]
    assert merge_shards(tmp_path / "many") == whole
    assert content(tmp_path / "many") == content(tmp_path / "one")


def sources(folder):
    """The sources other than VOC and shapes, with six images each."""
    names = [f"{k}.jpg" for k in range(6)]
    for k, name in enumerate(names):
        write(folder / "images" / name, noise(k, "JPEG"))
        write(folder / "labels" / f"{k}.txt", "0 .5 .5 .1 .1\n")
    write(folder / "classes.txt", "cat\n")
    rows = [f"{name},cat,1,1,9,9" for name in names]
    write(folder / "t.csv", "\n".join(["filename,class,xmin,ymin,xmax,ymax", *rows]))
    images = [(k, name) for k, name in enumerate(names)]
    annotations = [(k, 7, [1, 1, 5, 5], k == 2) for k in range(6)]
    text = json.loads(coco_json(images, annotations))
    for image in text["images"]:  # those of `coco_json` are not the sizes of these files
        del image["height"], image["width"]
    write(folder / "a.json", json.dumps(text))
    yield "yolo", ""
    yield "csv", "t.csv:images"
    yield "coco", "a.json:images"


def test_every_source_has_shards(tmp_path):
    for name, splits in sources(tmp_path / "set"):
        whole = prepare_records(
            open_source(name, path=str(tmp_path / "set"), splits=splits), tmp_path / name / "one", 2
        )
        for k in range(2):
            again = open_source(name, path=str(tmp_path / "set"), splits=splits)
            prepare_shard(again, tmp_path / name / "many", k, 2)
        assert merge_shards(tmp_path / name / "many") == whole
        assert content(tmp_path / name / "many") == content(tmp_path / name / "one"), name
        assert whole.num_images == 6


def test_a_shard_reads_only_its_images(voc):
    read, notes = [], Notes()

    def keep(image_id):
        read.append(image_id)
        return image_id == "im1"

    assert [sample.image_id for sample in opened(voc).read(keep, notes)] == ["im1"]
    assert sorted(read) == sorted(NAMES)
    assert notes == Notes()  # the broken image was not read


def test_what_exists_is_skipped_and_a_killed_job_is_repeated(voc, tmp_path):
    for k in range(2):
        prepare_shard(opened(voc), tmp_path / "out", k, 2)
    before = content(tmp_path / "out")
    assert prepare_shard(opened(voc), tmp_path / "out", 1, 2) is None
    # Killed after the records, before their card; a temporary file is left.
    (tmp_path / "out/card-00001-of-00002.json").unlink()
    (tmp_path / "out/.17.records-00001-of-00002.tfrecord").touch()
    assert prepare_shard(opened(voc), tmp_path / "out", 1, 2).num_images
    assert content(tmp_path / "out") == before


def test_a_killed_merge_is_repeated(voc, tmp_path):
    out = tmp_path / "out"
    for k in range(2):
        prepare_shard(opened(voc), out, k, 2)
    part = (out / "card-00001-of-00002.json").read_bytes()
    complete = merge_shards(out)
    after = content(out)
    (out / "card-00001-of-00002.json").write_bytes(part)  # killed before it was removed
    assert merge_shards(out) == complete
    assert content(out) == after
    assert prepare_shard(opened(voc), out, 0, 2) is None  # a job that comes late
    with pytest.raises(ValueError, match="already holds another record set"):
        prepare_shard(opened(voc), out, 0, 3)


def test_what_does_not_belong_together_is_refused(voc, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="holds no shards: write them with"):
        merge_shards(tmp_path)
    prepare_shard(opened(voc), out, 0, 2)
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 2 shards, first 1: run.*=1/2"):
        merge_shards(out)
    with pytest.raises(FileNotFoundError, match="run `prepare --merge`"):
        read_card(out)
    with pytest.raises(ValueError, match="a shard of another number than 3"):
        prepare_shard(opened(voc), out, 0, 3)
    with pytest.raises(ValueError, match="holds shards of `prepare --shard`"):
        prepare_records(opened(voc), out, 2)
    prepare_shard(opened(voc, "train"), out, 1, 2)
    with pytest.raises(ValueError, match=r"another source than card-0+-of-00002\.json"):
        merge_shards(out)


def test_a_merge_without_images_is_refused(tmp_path):
    write_voc(tmp_path / "set", {"a": voc_xml([("cat", 1, 1, 9, 9)])}, image=b"no image")
    prepare_shard(opened(tmp_path / "set"), tmp_path / "out", 0, 1)
    with pytest.raises(ValueError, match=r"there are no images to write.*1 x image does"):
        merge_shards(tmp_path / "out")
    assert not (tmp_path / "out/card.json").exists()


def test_a_record_has_the_same_bytes_in_every_process():
    """Protocol buffers write the keys of a map in any order, unless they are told to sort them."""
    record = serialize(next(open_source("shapes", num_images=1).samples))
    keys = sorted(tf.train.Example.FromString(record).features.feature)
    places = [record.index(key.encode()) for key in keys]
    assert len(places) == 11
    assert places == sorted(places)


def test_a_worker_process_tells_what_was_left_out(voc, tmp_path):
    """What Apache Beam runs, without Beam."""
    whole = prepare_records(opened(voc), tmp_path / "one", 2)
    process = shard_writer("voc", {"path": str(voc)}, tmp_path / "many", 2)
    first = [item for k in range(2) for item in process(k)]
    again = [item for k in range(2) for item in process(k)]
    dead = [letter for tag, letter in first if tag == "dead"]
    assert {(d["item"], d["reason"]) for d in dead} == {
        ("im3 object 2", "box without area"),
        ("im5", "image does not decode"),
        ("extra", "image without annotation"),
    }
    assert [letter for tag, letter in again if tag == "dead"] == dead
    assert [text.rpartition(": ")[2] for tag, text in again if tag == "done"] == ["skipped"] * 2
    assert merge_shards(tmp_path / "many") == whole


def test_the_command(voc, tmp_path, capsys):
    flags = ["--source=voc", f"--path={voc}", f"--out={tmp_path / 'out'}"]
    with loaded_command("prepare") as prepare:
        for k in range(2):
            assert in_process(prepare, *flags, f"--shard={k}/2") == 0
        assert in_process(prepare, *flags, "--shard=1/2") == 0
        assert in_process(prepare, *flags, "--shard=2/2") == 1
        assert in_process(prepare, *flags, "--shard=1/2", "--shards=3") == 1
        merge = f"--merge={tmp_path / 'out'}"
        assert in_process(prepare, merge, flags[0]) == 1
        assert in_process(prepare, merge) == 0
    printed = capsys.readouterr()
    assert "out, shard 1 of 2: exists: skipped\n" in printed.out
    assert f"{tmp_path / 'out'}: 11 images, 21 objects" in printed.out
    assert "shard (='2/2') must be k/n" in printed.err
    assert "--shard names the number of record files: remove --shards" in printed.err
    assert "needs no --source: remove it" in printed.err
    assert read_card(tmp_path / "out").num_images == 11
