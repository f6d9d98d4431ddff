"""Writes the report: one HTML page that loads no other file, and its figures as PNG files."""

import base64
import dataclasses
import io
import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_keras.data.card import DataCard
from ssd_keras.evaluation import figures
from ssd_keras.evaluation.analysis import Analysis, Example
from ssd_keras.evaluation.report_pictures import example_picture, read_images, tiling_picture
from ssd_keras.evaluation.sensitivity import SIZES
from ssd_keras.files import atomic
from ssd_keras.inference.detector import Detector

PAGE, NUMBERS = "report.html", "report.json"
_CHANGED = 0.01  # smallest change of AP that is marked
_MAX_MATRIX = 30  # classes; a larger matrix is not readable, so only its largest cells are listed
_MAX_CONFUSIONS = 12
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px;
  margin: 2em auto; padding: 0 1em; }
h1, h2, h3 { font-weight: 600; line-height: 1.2; }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc; padding-bottom: .2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; }
.up { background: #dff3df; } .down { background: #fbdcdc; }
.mean td { border-top: 2px solid #888; font-weight: 600; }
.scroll { overflow-x: auto; } .matrix td, .matrix th { padding: .1em .4em; font-size: 12px; }
svg, img { max-width: 100%; height: auto; }
figure { display: inline-block; margin: .3em; vertical-align: top; width: 250px; }
figcaption { font-size: 12px; overflow-wrap: anywhere; } p.note { color: #555; max-width: 46em; }
"""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One detector of the report.

    Attributes:
        analysis: Its analysis.
        detector: The detector, to compute the boxes of the examples.
    """

    analysis: Analysis
    detector: Detector


def write_html_report(
    runs: Sequence[Run],
    card: DataCard,
    records: str | os.PathLike[str],
    out: str | os.PathLike[str],
) -> Path:
    """Writes `report.html`, `report.json` and the figures as PNG files to a folder.

    The page contains its figures as inline SVG and its pictures as data URLs.

    Args:
        runs: One or more detectors, evaluated on the same records.
        card: Card of the records.
        records: Folder of the records, for the pictures.
        out: Folder to write to; files of the same names are replaced.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError, ValueError: If the record set is incomplete or damaged.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    analyses = [run.analysis for run in runs]
    title = f"Detection report: {card.source or Path(records).name}"
    counts = f"{card.num_images} images, {card.num_objects} objects, {len(card.labels)} classes"

    def figure(name: str, draw: figures.Draw) -> str:
        return f"<div>{figures.write_figure(draw, out / f'{name}.png')}</div>"

    parts = [
        f"<h1>{escape(title)}</h1><p>{escape(counts)}. Detectors: "
        f"{escape(', '.join(a.name for a in analyses))}.</p>",
        "<h2>Average precision</h2>",
        _ap_table(analyses),
        "<h2>Precision and recall</h2>",
        figure("precision_recall", lambda: figures.precision_recall_figure(analyses)),
        "<h2>Gain in mean AP if one kind of error were corrected</h2>",
        _note(
            "Kinds as in TIDE. localization: right class, IoU from 0.1 to 0.5. class: right place, "
            "wrong class. duplicate: the object has a better detection. background: the IoU with "
            "every object is at most 0.1. both: wrong class and place. missed: objects without a "
            "true positive and without an error of the kinds localization and class."
        ),
        figure("gains", lambda: figures.gains_figure(analyses)),
        "<h2>Kinds of false positives</h2>",
        _note(
            "As in figure 3 of the SSD paper, lower row: kinds of the false positives of highest "
            "score, averaged over the classes."
        ),
        figure("false_positives", lambda: figures.false_positive_figure(analyses)),
        "<h2>Sensitivity to object size and aspect ratio</h2>",
        _note(
            "As in figure 4 of the paper: normalized AP of the smallest 10 % of the objects of "
            "each class, and of the next 20, 40, 20 and 10 %."
        ),
        figure("sensitivity", lambda: figures.sensitivity_figure(analyses)),
        "<h2>Calibration of scores</h2>",
        "<p>Expected calibration error: "
        + escape(", ".join(f"{a.name} {a.calibration_error:.3f}" for a in analyses))
        + "</p>",
        figure("calibration", lambda: figures.calibration_figure(analyses)),
    ]
    first = read_images(records, [0])[0]
    for number, run in enumerate(runs, start=1):
        parts.append(f"<h2>{escape(run.analysis.name)}</h2>")
        parts += _details(run, card, records, out, f"{number}")
        if run.detector.config is not None:
            picture = tiling_picture(first, run.detector.config)
            picture.save(out / f"tiling_{number}.png")
            parts += [
                "<h3>Tiling of default boxes</h3>",
                f"<p>{_data_image(picture, 'tiling')}</p>",
            ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    with atomic(out / NUMBERS) as path:
        content = [analysis.to_dict() for analysis in analyses]
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
    with atomic(out / PAGE) as path:
        path.write_text(page, "utf-8")
    return out / PAGE


def _details(
    run: Run, card: DataCard, records: str | os.PathLike[str], out: Path, suffix: str
) -> list[str]:
    """Returns the sections of one detector: errors by rank, maps, confusion and pictures."""
    analysis = run.analysis
    svg = figures.write_figure(
        lambda: figures.error_rank_figure(analysis), out / f"errors_by_rank_{suffix}.png"
    )
    parts = [
        "<h3>Kinds of detections by rank</h3>",
        _note(
            "As in figure 3 of the paper, upper row. Red: recall at IoU 0.5 (solid) and 0.1 "
            "(dashed)."
        ),
        f"<div>{svg}</div>",
    ]
    if analysis.map_names:
        parts += ["<h3>Recall by feature map and size</h3>", _map_table(analysis)]
    parts += ["<h3>Confusion between classes</h3>", _confusion(analysis.confusion, card.labels)]
    for title, examples in (
        ("Missed objects, lowest score first, then largest first", analysis.misses),
        ("False positives, highest score first", analysis.false_positives),
    ):
        parts.append(f"<h3>{title}</h3>")
        parts.append(_gallery(examples, run.detector, card.labels, records) or "<p>None.</p>")
    return parts


def _ap_table(analyses: Sequence[Analysis]) -> str:
    """Returns the AP of each class, with changes relative to the first detector."""
    names = [a.name for a in analyses]
    head = ["class", "objects", *names, *(f"change: {name}" for name in names[1:])]
    rows = []
    for number, c in enumerate(analyses[0].result.classes):
        values = [a.result.classes[number].ap_area for a in analyses]
        rows.append(_ap_row(c.label, c.num_objects, values))
    means = [a.result.mean_ap_area for a in analyses]
    total = sum(c.num_objects for c in analyses[0].result.classes)
    rows.append(_ap_row("mean, area AP", total, means, "mean"))
    eleven = [a.result.mean_ap_11_point for a in analyses]
    rows.append(_ap_row("mean, 11-point AP", total, eleven, "mean"))
    return _table(head, rows)


def _ap_row(label: str, objects: int, values: list[float], css: str = "") -> str:
    cells = [f"<td>{escape(label)}</td><td>{objects}</td>"]
    cells += [f"<td>{_number(value)}</td>" for value in values]
    for value in values[1:]:
        change = value - values[0]
        mark = "up" if change >= _CHANGED else "down" if change <= -_CHANGED else ""
        cells.append(f'<td class="{mark}">{_number(change, "+.3f")}</td>')
    return f'<tr class="{css}">{"".join(cells)}</tr>'


def _map_table(analysis: Analysis) -> str:
    rows = []
    for name, objects, found in zip(
        analysis.map_names, analysis.map_objects, analysis.map_found, strict=True
    ):
        cells = [f"<td>{escape(name)}</td>"]
        for total, hits in zip([*objects, objects.sum()], [*found, found.sum()], strict=True):
            share = hits / total if total else 0.0
            text = f"{share:.2f} <small>of {total}</small>" if total else ""
            cells.append(f"<td{_shade(share) if total else ''}>{text}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    note = _note(
        "Each object belongs to the map of the default box that overlaps it most. The "
        "columns are the smallest 10 % of all objects, the next 20, 40, 20 and 10 %."
    )
    return note + _table(["map", *SIZES, "all"], rows)


def _confusion(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """Returns the largest confusions, and the matrix if it is small enough to read."""
    wrong = matrix[1:, 1:] * (1 - np.eye(len(labels), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    pairs = [divmod(int(k), len(labels)) for k in order if wrong.flat[k]]
    text = "; ".join(f"{wrong[i, j]} x {labels[i]} as {labels[j]}" for i, j in pairs)
    parts = [f"<p>{escape(text) or 'No object is detected as another class.'}</p>"]
    if len(labels) <= _MAX_MATRIX:
        rows = []
        for k, name in enumerate(["background", *labels]):
            total = max(int(matrix[k].sum()), 1)
            cells = "".join(
                f"<td{_shade(n / total) if n else ''}>{n or ''}</td>" for n in matrix[k].tolist()
            )
            rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
        parts.append(
            _note("Rows are the classes of objects, columns the detected classes.")
            + _table(["object", "nothing", *labels], rows, "matrix")
        )
    return "".join(parts)


def _gallery(
    examples: Sequence[Example],
    detector: Detector,
    labels: Sequence[str],
    records: str | os.PathLike[str],
) -> str:
    if not examples:
        return ""
    images = read_images(records, [example.image for example in examples])
    items = []
    for example in examples:
        picture = example_picture(example, images[example.image], detector, labels)
        name = labels[example.class_id - 1]
        score = f"best score {example.score:.2f}" if example.box else f"{example.score:.2f}"
        caption = f"{name}: {example.kind}, {score}, image {example.image}"
        items.append(
            f"<figure>{_data_image(picture, name)}<figcaption>{escape(caption)}</figcaption>"
            "</figure>"
        )
    return "".join(items)


def _data_image(picture: Image.Image, description: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(description)}" src="data:image/jpeg;base64,{data}">'


def _table(head: Sequence[str], rows: Sequence[str], css: str = "") -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="scroll"><table class="{css}"><tr>{cells}</tr>{"".join(rows)}</table></div>'


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _number(value: float, form: str = ".3f") -> str:
    return "" if np.isnan(value) else format(value, form)


def _shade(share: float) -> str:
    """Returns a background color from white (0) to blue (1) as an attribute."""
    return f' style="background:rgba(51,102,204,{0.6 * share:.2f})"'
