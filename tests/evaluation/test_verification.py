import dataclasses
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from ssd_keras.commands.common import guarded
from ssd_keras.data.records import read_samples, write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.detections import DetectionDecoder
from ssd_keras.evaluation import verification
from ssd_keras.export import agreement, tolerances
from ssd_keras.export.saved_model import export_saved_model
from ssd_keras.export.tflite.converter import export_tflite
from ssd_keras.model import ssd_vgg16
from ssd_keras.version import __version__
from tests.processes import ssd_keras
from tests.tiny import SSD64

# --- agreement ---


def decoder(**options):
    return DetectionDecoder(SSD64, **options)


def detections(*rows):
    """Creates detections from rows of ymin, xmin, ymax, xmax, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return {"boxes": table[:, :4], "scores": table[:, 4], "classes": table[:, 5].astype(int)}


def one_reference(*rows, classes=2):
    """Creates a reference whose only candidates are its detections."""
    found = detections(*rows)
    scores = np.zeros((len(rows), classes), np.float32)
    scores[np.arange(len(rows)), found["classes"] - 1] = found["scores"]
    return agreement.Reference(found["boxes"], scores, found)


TOLERANCE = agreement.Tolerance(0.01, 0.01, 0.0)
A = (0.1, 0.1, 0.5, 0.5, 0.9, 1)
B = (0.6, 0.6, 0.9, 0.9, 0.8, 2)


def compare(reference, found, **options):
    return agreement.compare([reference], [detections(*found)], decoder(**options), TOLERANCE)


def test_equal_detections_in_another_order_agree():
    assert compare(one_reference(A, B), [B, A]) == agreement.Agreement(1, 2, 0, 0, 0.0, 0.0)


def test_differences_are_those_of_the_nearest_candidate():
    found = compare(one_reference(A, B), [(0.1, 0.1, 0.5, 0.52, 0.87, 1), B])
    assert (found.unmatched, found.detections) == (1, 2)  # A has no counterpart with the same score
    assert found.box_difference == pytest.approx(0.02)
    assert found.score_difference == pytest.approx(0.03)
    assert found.far == 1
    assert not TOLERANCE.covers(found)


def test_missing_surplus_and_wrong_class_are_unmatched():
    assert compare(one_reference(A, B), [A]).unmatched == 1
    assert compare(one_reference(A), [A, B]).unmatched == 1
    assert compare(one_reference(A, B), [A, (*B[:5], 1)]).unmatched == 2
    assert compare(one_reference(), []) == agreement.Agreement(1, 0, 0, 0, 0.0, 0.0)


def test_the_other_of_two_overlapping_boxes_may_be_kept():
    other = (0.1, 0.1, 0.5, 0.45, 0.9, 1)
    both = one_reference(A, other)
    reference = dataclasses.replace(both, detections=detections(A))
    assert compare(reference, [other]) == agreement.Agreement(1, 1, 0, 0, 0.0, 0.0)


def test_scores_near_the_cutoff_are_excused():
    weak = (0.6, 0.6, 0.9, 0.9, 0.015, 2)
    assert compare(one_reference(A, weak), [A]).unmatched == 0
    assert compare(one_reference(A, weak), [A], score_threshold=0.001).unmatched == 1
    near = (0.6, 0.6, 0.9, 0.9, 0.895, 2)
    assert compare(one_reference(A), [A, near], max_detections=1).unmatched == 0


def test_detections_to_suppress_are_unmatched():
    inside = (0.1, 0.1, 0.5, 0.4, 0.5, 1)  # IoU 0.75 with A
    suppressed = dataclasses.replace(one_reference(A, inside), detections=detections(A))
    assert compare(suppressed, [A, inside]).unmatched == 1
    assert compare(suppressed, [A, inside], iou_threshold=0.9).unmatched == 1  # not in the model
    assert compare(one_reference(A, inside), [A, inside], iou_threshold=0.9).unmatched == 0
    assert compare(one_reference(A, B), [A, A, A, B]).unmatched == 2
    assert compare(one_reference(A, B), [A, (*A[:5], 2), B]).unmatched == 1  # another class


def test_the_better_of_two_overlapping_boxes_must_be_kept():
    worse = (0.1, 0.1, 0.5, 0.45, 0.3, 1)
    reference = dataclasses.replace(one_reference(A, worse), detections=detections(A))
    assert compare(reference, [worse]).unmatched == 1


def test_boxes_that_overlap_only_after_clipping_are_both_kept():
    above, below = (-0.9, 0.2, 0.1, 0.6, 0.9, 1), (-0.1, 0.2, 0.1, 0.6, 0.8, 1)  # IoU 0.1
    clipped = [(0.0, *above[1:]), (0.0, *below[1:])]  # IoU 1
    reference = dataclasses.replace(one_reference(above, below), detections=detections(*clipped))
    assert compare(reference, clipped) == agreement.Agreement(1, 2, 0, 0, 0.0, 0.0)


def test_weak_detections_do_not_dilute_the_unmatched_share():
    """The number of weak detections has no effect on the share."""
    weak = [(0.01 * i, 0.9, 0.01 * i + 0.01, 1.0, 0.015, 2) for i in range(50)]
    assert compare(one_reference(A, B, *weak), [A, *weak]).unmatched_share == 0.5


@pytest.mark.parametrize("precision", ["dynamic", "int8"])
def test_8_bits_may_move_boxes_and_scores_only_a_little(precision):
    tolerance = tolerances.TFLITE[precision]
    rows = np.array([(0.1 * i, 0.1, 0.1 * i + 0.1, 0.4, 0.9, 1) for i in range(8)])

    def covers(rows_found):
        found = [detections(*rows_found)]
        return tolerance.covers(
            agreement.compare([one_reference(*rows)], found, decoder(), tolerance)
        )

    assert covers(np.add(rows, [0.02, 0.02, 0.02, 0.02, -0.06, 0]))
    assert not covers(np.add(rows, [0, 0.06, 0, 0.06, 0, 0]))
    assert not covers(np.add(rows, [0, 0, 0, 0, -0.2, 0]))
    assert not covers(rows[::2])


@pytest.mark.parametrize(("precision", "most"), [("float32", 0), ("float16", 0), ("int8", 2)])
def test_a_weak_detection_may_be_elsewhere_in_8_bits_only(precision, most):
    """The limit is a tenth of the 20 clear detections: 2."""
    tolerance = tolerances.TFLITE[precision]
    rows = [(0.05 * i, 0.1, 0.05 * i + 0.05, 0.4, 0.9, 1) for i in range(20)]
    elsewhere = [(0.05 * i, 0.5, 0.05 * i + 0.05, 0.6, 0.04, 1) for i in range(20)]
    for count in range(4):
        found = [detections(*rows, *elsewhere[:count])]
        result = agreement.compare([one_reference(*rows)], found, decoder(), tolerance)
        assert (result.detections, result.far) == (20, count)
        # With float tolerances the others are clear and unmatched; only `far` is tested here.
        result = dataclasses.replace(result, unmatched=0)
        assert tolerance.covers(result) == (count <= most)


def test_nothing_to_compare_is_not_agreement():
    weak = (0.6, 0.6, 0.9, 0.9, 0.015, 2)
    for reference in (one_reference(), one_reference(weak)):
        found = compare(reference, [])
        assert found.is_empty
        assert str(found) == "nothing to compare: no clear detection in 1 images"
        assert not TOLERANCE.covers(found)
    assert not compare(one_reference(weak), [A]).is_empty


@pytest.mark.parametrize("column", [0, 4])
def test_nan_never_agrees(column):
    rows = [(0.05 * i, 0.1, 0.05 * i + 0.05, 0.4, 0.9, 1) for i in range(20)]
    bad = list(rows[0])
    bad[column] = np.nan
    tolerance = tolerances.TFLITE["int8"]
    found = agreement.compare(
        [one_reference(*rows)], [detections(*rows, bad)], decoder(), tolerance
    )
    assert not tolerance.covers(found)


# --- the verify command ---


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a model, its SavedModel, its TFLite file and records of two images."""
    folder = tmp_path_factory.mktemp("verify")
    keras.utils.set_random_seed(0)
    model = ssd_vgg16(SSD64, len(SHAPE_LABELS), width=1 / 16, labels=SHAPE_LABELS)
    model.save(folder / "model.keras")
    export_saved_model(model, folder / "detector")
    export_tflite(model, folder / "detector.tflite")
    write_records(draw_shapes(2, seed=1), folder / "records", SHAPE_LABELS, shards=1)
    return folder


def run(folder, *arguments):
    return ssd_keras("verify", "--model", folder / "model.keras", *arguments)


def test_command_verifies_and_reports(exported, tmp_path):
    paths = [exported / "detector", exported / "detector.tflite"]
    done = run(exported, "--records", exported / "records", "--out", tmp_path, *paths)
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.strip().splitlines()[-3:]]
    assert names == ["model.keras", "detector", "detector.tflite"]
    content = json.loads((tmp_path / "verification.json").read_text())
    assert content["pictures"] == [s.image_id for s in read_samples(exported / "records")]
    assert content["versions"]["ssd_keras"] == __version__
    values = content["files"]
    assert values[2]["tolerance"] == dataclasses.asdict(tolerances.TFLITE["float32"])
    assert [value["agrees"] for value in values] == [True, True, True]
    assert values[0]["mean_ap"] == pytest.approx(values[2]["mean_ap"], abs=0.01)
    with Image.open(tmp_path / "verification.png") as sheet:
        assert sheet.width > sheet.height


def test_command_fails_for_what_differs(exported, tmp_path):
    other = keras.models.clone_model(keras.saving.load_model(exported / "model.keras"))
    other.save(tmp_path / "model.keras")
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    (tmp_path / "one.jpg").write_bytes(next(iter(draw_shapes(1, seed=1))).image)
    arguments = ["--images", tmp_path, "--out", tmp_path / "report", exported / "detector.tflite"]
    done = run(tmp_path, *arguments)
    assert done.returncode == 1, done.stderr
    assert "DIFFERS" in done.stdout
    assert "no.jpg skipped: cannot be decoded" in done.stderr


def test_errors_have_a_separate_exit_code(capsys):
    def fail(words):
        raise ValueError("name at least one file")

    assert guarded(SimpleNamespace(main=fail, ERROR_CODE=2), "verify", []) == 2
    assert capsys.readouterr().err == "error: name at least one file\n"


def test_ap_is_compared_at_the_thresholds_of_the_file(exported, tmp_path, monkeypatch):
    model = keras.saving.load_model(exported / "model.keras")
    export_saved_model(model, tmp_path / "few", max_detections=3)
    seen = []

    def ap_of_count(found, samples, labels):
        seen.append(max(len(image["scores"]) for image in found))
        return SimpleNamespace(mean_ap_area=seen[-1] / 200)

    monkeypatch.setattr(verification, "voc_average_precision", ap_of_count)
    report = verification.verify(
        exported / "model.keras",
        [exported / "detector", tmp_path / "few"],
        list(draw_shapes(2, seed=1)),
        record_labels=SHAPE_LABELS,
    )
    assert seen == [200, 200, 3, 3]
    assert report.agrees, verification.table(report)


def test_a_loss_of_ap_alone_differs(exported, monkeypatch):
    values = iter([0.5, 0.48])
    monkeypatch.setattr(
        verification,
        "voc_average_precision",
        lambda *_: SimpleNamespace(mean_ap_area=next(values)),
    )
    report = verification.verify(
        exported / "model.keras",
        [exported / "detector.tflite"],
        list(draw_shapes(2, seed=1)),
        record_labels=SHAPE_LABELS,
    )
    assert report.verdicts[1].tolerance.covers(report.verdicts[1].agreement)
    assert not report.agrees


def test_records_of_other_classes_are_refused_and_of_another_order_renumbered(
    exported, monkeypatch
):
    files, samples = [exported / "detector.tflite"], list(draw_shapes(1, seed=1))
    with pytest.raises(ValueError, match=r"records have the labels .* both must have the same"):
        verification.verify(exported / "model.keras", files, samples, record_labels=["a", "b"])
    seen = []

    def keep(found, samples, labels):
        seen.append((found[0]["classes"], labels))
        return SimpleNamespace(mean_ap_area=1.0)

    monkeypatch.setattr(verification, "voc_average_precision", keep)
    turned = SHAPE_LABELS[::-1]
    report = verification.verify(exported / "model.keras", files, samples, record_labels=turned)
    classes, labels = seen[1]
    assert labels == turned
    ours = report.verdicts[1].detections[0]["classes"]
    assert [turned[k - 1] for k in classes] == [SHAPE_LABELS[k - 1] for k in ours]


def test_a_model_without_labels_uses_those_of_its_files(exported, tmp_path):
    named = keras.saving.load_model(exported / "model.keras")
    model = ssd_vgg16(SSD64, len(SHAPE_LABELS), width=1 / 16)
    model.set_weights(named.get_weights())
    model.save(tmp_path / "unnamed.keras")
    files = [exported / "detector.tflite"]
    report = verification.verify(tmp_path / "unnamed.keras", files, list(draw_shapes(1, seed=1)))
    assert report.agrees
    assert report.labels == SHAPE_LABELS
    ssd_vgg16(SSD64, 2, width=1 / 16).save(tmp_path / "two.keras")
    message = "has 5 labels, but the model has 2 classes: it was exported from another model"
    with pytest.raises(ValueError, match=message):
        verification.verify(tmp_path / "two.keras", files, list(draw_shapes(1, seed=1)))


def test_a_cell_shows_name_and_boxes():
    picture = Image.new("RGB", (60, 60))
    cells = [
        np.asarray(verification._cell(picture, detections(*rows), "name", ("disk",)), int)
        for rows in ([], [(0.3, 0.3, 0.9, 0.9, 0.9, 1)])
    ]
    title = cells[0].shape[0] - 60
    assert cells[0][:title].min() < 128 < cells[0][:title].max()
    assert not cells[0][title:].any()
    assert cells[1][title + 18, 18:54].any()


def test_a_file_of_other_weights_differs(exported, tmp_path):
    other = keras.models.clone_model(keras.saving.load_model(exported / "model.keras"))
    other.save(tmp_path / "other.keras")
    samples = list(draw_shapes(2, seed=1))
    report = verification.verify(tmp_path / "other.keras", [exported / "detector.tflite"], samples)
    assert [verdict.agrees for verdict in report.verdicts] == [True, False]
    assert not report.agrees
    assert "DIFFERS" in verification.table(report)


def test_a_model_of_mixed_precision_is_compared_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = ssd_vgg16(SSD64, len(SHAPE_LABELS), width=1 / 16, labels=SHAPE_LABELS)
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    export_saved_model(model, tmp_path / "detector")
    samples = list(draw_shapes(2, seed=1))
    report = verification.verify(tmp_path / "model.keras", [tmp_path / "detector"], samples)
    assert report.agrees, verification.table(report)


def test_labels_of_another_model_and_missing_files(exported, tmp_path):
    labels = [f"other {label}" for label in SHAPE_LABELS]
    model = ssd_vgg16(SSD64, len(labels), width=1 / 16, labels=labels)
    model.save(tmp_path / "other.keras")
    path = exported / "detector.tflite"
    samples = list(draw_shapes(1, seed=1))
    with pytest.raises(ValueError, match="it was exported from another model"):
        verification.verify(tmp_path / "other.keras", [path], samples)
    with pytest.raises(FileNotFoundError, match="nothing"):
        verification.load_exported(tmp_path / "nothing.tflite")


def test_a_saved_model_in_bfloat16_has_its_own_tolerance(exported, tmp_path):
    model = keras.saving.load_model(exported / "model.keras")
    export_saved_model(model, tmp_path / "half", precision="bfloat16")
    report = verification.verify(
        exported / "model.keras", [tmp_path / "half"], list(draw_shapes(2, seed=1))
    )
    assert report.verdicts[1].tolerance == tolerances.SAVED_MODEL["bfloat16"]
    # Scores of random heads are nearly equal, so that no detection is clear in bfloat16.
    assert report.verdicts[1].agreement.far == report.verdicts[1].agreement.unmatched == 0
    assert report.verdicts[1].agreement.score_difference > 1e-4
    path = tmp_path / "half/assets/detector.json"
    path.write_text(path.read_text().replace('"bfloat16"', '"int4"'))
    with pytest.raises(ValueError, match=r"has the precision 'int4', which is not one of float32,"):
        verification.load_exported(tmp_path / "half")
