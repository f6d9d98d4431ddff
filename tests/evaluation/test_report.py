"""The report page is complete and self-contained, and escapes names from files."""

import html.parser
import json
import re

import numpy as np
import pytest
from PIL import Image

from ssd_keras.data.card import read_card
from ssd_keras.data.records import read_samples, write_records
from ssd_keras.evaluation.analysis import analyze, worst_false_positives, worst_misses
from ssd_keras.evaluation.errors import similar_classes
from ssd_keras.evaluation.matches import match_table
from ssd_keras.evaluation.report import Run, write_html_report
from ssd_keras.inference.detector import Detector
from tests.data_sets import make_samples
from tests.evaluation.test_voc import detections, sample
from tests.tiny import TINY

EVIL = "<script>alert(1)</script> & \"$x^2$' 犬"
LABELS = (EVIL, "dog", "cat")


def run_of(name, shift, samples):
    """Creates a detector that finds each object with a shift; scores fall with the class id."""
    by_image = {s.image: s for s in samples}

    def run(images):
        founds = [by_image[image] for image in images.numpy()]
        k = max(len(s.labels) for s in samples)
        out = {
            "boxes": np.zeros((len(images), k, 4), np.float32),
            "scores": np.zeros((len(images), k), np.float32),
            "classes": np.zeros((len(images), k), np.int32),
            "num_detections": np.array([len(s.labels) for s in founds]),
        }
        for i, s in enumerate(founds):
            n = len(s.labels)
            out["boxes"][i, :n] = s.boxes + shift
            out["scores"][i, :n] = 0.9 - 0.2 * np.arange(n)
            out["classes"][i, :n] = s.labels
        return out

    detector = Detector(LABELS, run, TINY)
    found = [detector.detect([s.image])[0] for s in samples]
    table = match_table(found, samples, LABELS, similar_classes(LABELS))
    return Run(analyze(name, table, TINY), detector)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_records(make_samples(8), folder / "records", LABELS, shards=2, source=EVIL)
    samples = list(read_samples(folder / "records"))
    runs = [run_of(EVIL, 0.0, samples), run_of("shifted", 0.25, samples)]
    write_html_report(runs, read_card(folder / "records"), folder / "records", folder / "out")
    return folder / "out"


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing_and_runs_nothing(report):
    tags = Tags()
    tags.feed((report / "report.html").read_text("utf-8"))
    names = {tag for tag, _ in tags.found}
    assert names.isdisjoint({"script", "link", "iframe", "object", "base"})
    for tag, attributes in tags.found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, value)
    assert sum(tag == "svg" for tag, _ in tags.found) == 7
    assert "default-src 'none'" in (report / "report.html").read_text("utf-8")


def test_names_are_escaped_and_shown(report):
    text = (report / "report.html").read_text("utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in text
    assert "$x^2$" in text  # not drawn as a formula


def test_changes_of_a_class_are_marked(report):
    text = (report / "report.html").read_text("utf-8")
    assert re.search(r"<td>dog</td><td>\d</td><td>1\.000</td><td>0\.\d{3}</td>", text)
    assert text.count('class="down"') >= 2


def test_pictures_and_numbers(report):
    for name in ("precision_recall", "gains", "false_positives", "sensitivity", "calibration"):
        with Image.open(report / f"{name}.png") as picture:
            assert min(picture.size) > 100
    content = json.loads((report / "report.json").read_text("utf-8"))
    assert [run["name"] for run in content] == [EVIL, "shifted"]
    assert content[0]["mean_ap_area"] == 1
    assert content[0]["gains"]["localization"] == 0
    assert content[1]["gains"]["localization"] > 0
    assert list(content[0]["recall_by_map"]) == [m.name for m in TINY.feature_maps]


def test_worst_examples_by_hand():
    """Two cats of 20 x 20 and 40 x 40 are missed, one is found with the score 0.3."""
    truth = sample([[0, 0, 20, 20], [50, 50, 90, 90], [0, 50, 20, 70]])
    found = detections([[0, 50, 20, 70], [30, 0, 40, 10], [0, 30, 5, 35]], [0.3, 0.8, 0.9])
    table = match_table([found], [truth], ["cat"])
    misses = worst_misses(table, 5)
    assert [(m.box, m.score) for m in misses] == [
        ((50, 50, 90, 90), 0),
        ((0, 0, 20, 20), 0),
        ((0, 50, 20, 70), 0.3),
    ]
    assert len(worst_misses(table, 5, score_threshold=0.2)) == 2
    assert [(e.index, e.score, e.kind) for e in worst_false_positives(table, 5)] == [
        (2, 0.9, "background"),
        (1, 0.8, "background"),
    ]


def test_a_detector_that_finds_nothing(tmp_path):
    write_records(make_samples(2), tmp_path / "records", LABELS, shards=1)
    samples = list(read_samples(tmp_path / "records"))
    nothing = [detections([], [])] * 2
    detector = Detector(LABELS, lambda images: {})
    run = Run(analyze("nothing", match_table(nothing, samples, LABELS)), detector)
    page = write_html_report([run], read_card(tmp_path / "records"), tmp_path / "records", tmp_path)
    assert "No object is detected as another class." in page.read_text("utf-8")
