import signal
import time

import numpy as np
import pytest

from ssd_keras.data.card import read_card
from ssd_keras.data.records import Sample, read_samples, write_records
from tests.cli import in_process, loaded_command
from tests.data_sets import coco_json, encoded, voc_xml, write, write_voc
from tests.processes import Program

CAT = ("cat", 4, 5, 40, 20)


@pytest.fixture(scope="module")
def prepare():
    with loaded_command("prepare") as module:
        yield module


def run(prepare, capsys, **values):
    """Runs the command with flags; returns its exit code and its output."""
    code = in_process(prepare, *(f"--{name}={value}" for name, value in values.items()))
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_voc(prepare, capsys, tmp_path):
    write_voc(tmp_path / "VOC2007", {"a": voc_xml([CAT, ("cat", 5, 5, 5, 9)]), "b": "<broken"})
    out = str(tmp_path / "out")
    code, printed = run(
        prepare, capsys, source="voc", path=str(tmp_path), splits="2007:train", out=out, shards=2
    )
    assert code == 0
    assert f"{out}: 1 images, 1 objects (0 difficult, at most 1 in an image), 1 cl" in printed
    assert "skipped: 1 x box without area (a object 2)" in printed
    assert read_card(out).skipped == {
        "box without area": ["a object 2"],
        "annotation XML is malformed or declares entities": ["b"],
    }
    assert read_card(out).source.endswith("2007:train")
    assert [s.image_id for s in read_samples(out)] == ["a"]

    code, printed = run(
        prepare, capsys, source="voc", path=str(tmp_path), splits="2007:train", out=out
    )
    assert code == 1
    assert printed.endswith("already holds a record set: remove it or write to another directory\n")


def test_check_reads_a_whole_set(prepare, capsys, tmp_path):
    out = tmp_path / "out"
    assert run(prepare, capsys, source="shapes", num_images=3, out=out, shards=2)[0] == 0
    code, printed = run(prepare, capsys, check=out)
    assert code == 0
    objects = read_card(out).num_objects
    assert printed.endswith(f"{out}: 3 images, {objects} objects, all valid\n")
    code, printed = run(prepare, capsys, check=out, source="shapes")
    assert (code, printed) == (1, f"error: --check (={out}) needs no --source: remove it\n")
    assert run(prepare, capsys)[1].startswith("error: --source is missing: give --source and --out")
    shard = out / "records-00001-of-00002.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    code, printed = run(prepare, capsys, check=out)
    assert code == 1
    assert f"error: {shard} is damaged at record 1 of 2 (corrupted record at 12" in printed


def test_check_decodes_the_images(prepare, capsys, tmp_path):
    wrong = {"a": b"no image", "b": encoded((41, 20))}
    for name, image in wrong.items():
        sample = Sample(image, name, 20, 40, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
        write_records([sample], tmp_path / name, ["cat"], shards=1)
    for name, found in (("a", "image does not decode"), ("b", r"it is (20, 41)")):
        code, printed = run(prepare, capsys, check=tmp_path / name)
        assert code == 1
        assert f"image '{name}' in {tmp_path / name} must have the size (20, 40)" in printed
        assert found in printed


def test_the_pixel_limit_is_a_flag(prepare, capsys, tmp_path):
    write_voc(tmp_path / "set", {"a": voc_xml([CAT])})
    words = {"source": "voc", "path": tmp_path / "set", "splits": "train", "max_pixels": 799}
    code, printed = run(prepare, capsys, out=tmp_path / "out", **words)
    assert code == 1
    assert "1 x image has more than 799 pixels" in printed


def test_coco_keeps_the_way_back(prepare, capsys, tmp_path):
    ground_truth = coco_json([(5, "5.jpg")], [(5, 90, [0, 0, 9, 9])])
    write(tmp_path / "annotations/instances_val2017.json", ground_truth)
    write(tmp_path / "val2017/5.jpg", encoded())
    out = str(tmp_path / "out")
    code, _ = run(prepare, capsys, source="coco", path=str(tmp_path), splits="val2017", out=out)
    assert code == 0
    assert read_card(out).category_ids == (7, 90)


def test_ilsvrc_det_has_its_labels(prepare, capsys, tmp_path):
    write(tmp_path / "ImageSets/DET/val.txt", "ILSVRC2012_val_00000001 1\n")
    xml = voc_xml([("n00007846", *CAT[1:])])
    write(tmp_path / "Annotations/DET/val/ILSVRC2012_val_00000001.xml", xml)
    write(tmp_path / "Data/DET/val/ILSVRC2012_val_00000001.JPEG", encoded())
    out = str(tmp_path / "out")
    code, _ = run(prepare, capsys, source="ilsvrc_det", path=str(tmp_path), splits="val", out=out)
    assert code == 0
    card = read_card(out)
    assert len(card.labels) == 200
    assert card.objects_per_class["person"] == 1


def test_yolo_and_shapes(prepare, capsys, tmp_path):
    write(tmp_path / "images/a.jpg", encoded())
    write(tmp_path / "labels/a.txt", "0 .5 .5 .1 .1\n")
    write(tmp_path / "classes.txt", "cat\n")
    out = str(tmp_path / "yolo")
    assert run(prepare, capsys, source="yolo", path=str(tmp_path), out=out)[0] == 0
    assert read_card(out).labels == ("cat",)
    out = str(tmp_path / "shapes")
    assert run(prepare, capsys, source="shapes", num_images=3, seed=1, out=out)[0] == 0
    assert read_card(out).num_images == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "voc"}, "error: --path is missing: --source=voc needs it, for example --path="),
        ({"source": "tfds", "path": ".", "splits": "x"}, "error: --name is missing: --source=tfds"),
        ({"source": "coco", "path": "."}, "error: --splits is missing: --source=coco needs it"),
        ({"source": "ilsvrc_det", "path": "."}, "error: --splits is missing: --source=ilsvrc_det"),
        ({"source": "voc", "path": ".", "num_images": 3}, "error: --num_images is not used by"),
        ({"source": "shapes", "path": "."}, "error: --path is not used by --source=shapes"),
        ({"source": "voc", "path": "nowhere"}, "error: nowhere/Annotations is missing"),
        ({"source": "shapes", "labels": "x.txt"}, "error: --labels is not used by --source=shapes"),
    ],
)
def test_errors_are_one_line(prepare, capsys, tmp_path, values, message):
    code, printed = run(prepare, capsys, out=str(tmp_path / "out"), **values)
    assert code == 1
    assert printed.startswith(message)
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_errors_while_writing_start_a_new_line(prepare, capsys, tmp_path):
    write_voc(tmp_path, {"a": voc_xml([CAT])})
    out = str(tmp_path / "out")
    code, printed = run(
        prepare, capsys, source="voc", path=str(tmp_path), splits="train+train", out=out
    )
    assert code == 1
    # The bar is on stderr and, as stderr is no terminal, not shown.
    assert printed.startswith("error: image id 'a' occurs twice; ids must be unique: list every")


def test_home_folders(prepare, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_voc(tmp_path / "set", {"a": voc_xml([CAT])})
    write(tmp_path / "labels.txt", "cat\n")
    values = {"path": "~/set", "labels": "~/labels.txt", "out": "~/out"}
    assert run(prepare, capsys, source="voc", splits="train", **values)[0] == 0
    assert read_card(tmp_path / "out").num_images == 1


def test_killed_half_way_it_leaves_no_complete_set_and_finishes_when_run_again(
    prepare, capsys, tmp_path
):
    out = tmp_path / "out"
    flags = ("--source=shapes", "--num_images=100000", f"--out={out}", "--shards=2")
    process = Program(None, ["prepare", *flags])
    try:
        deadline = time.monotonic() + 60
        while not (shards := list(out.glob("*.tfrecord"))) or not shards[0].stat().st_size:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(FileNotFoundError, match="no complete record set"):
        read_card(out)
    assert run(prepare, capsys, source="shapes", num_images=3, out=str(out), shards=1)[0] == 0
    assert len(list(read_samples(out))) == 3
    assert len(list(out.iterdir())) == 2
