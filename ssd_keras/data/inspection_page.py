"""The page of an inspection: one HTML file that contains its pictures and loads no other file."""

import base64
import html
import io
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ssd_keras.data.box_coverage import SHAPE_LIMITS, SIZE_LIMITS
from ssd_keras.data.inspection import FEW_OBJECTS, SAME_BOX, Inspection
from ssd_keras.data.records import Sample, read_samples
from ssd_keras.drawing import class_color
from ssd_keras.images import to_rgb

_SIDE = 220  # pixels of the longer side of a small picture
_SHOWN = 8  # pictures of each finding
_MARK = (220, 38, 38)  # color of the objects that a finding is about

# Index of a picture, and indices of its objects to mark.
_Marked = tuple[int, tuple[int, ...]]
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1f2937; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .1rem .7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; overflow-wrap: anywhere; }
tr:nth-child(even) { background: #f3f4f6; } th { font-weight: 600; }
.bar { background: #2563eb; height: .8rem; display: inline-block; }
.warn { background: #fef3c7; border-left: .3rem solid #d97706; padding: .4rem .8rem; }
.good { background: #ecfdf5; border-left: .3rem solid #059669; padding: .4rem .8rem; }
figure { display: inline-block; margin: .4rem; vertical-align: top; width: 14rem; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
.heat td { width: 1.5rem; height: 1.5rem; padding: 0; }
.columns { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
"""


def html_page(found: Inspection) -> str:
    """Formats the results of an inspection as an HTML page. All names in it are escaped.

    Args:
        found: From `inspect_records`. The record sets are read again for the pictures.
    """
    owners = found.owners
    side = np.sqrt(np.prod(found.coverage.sizes, axis=1))
    shape = found.coverage.sizes[:, 1] / np.maximum(found.coverage.sizes[:, 0], 1e-9)
    crowded = np.argsort([-len(p.boxes) for p in found.pictures], kind="stable")[:_SHOWN]
    odd_images = np.argsort([-abs(np.log(p.width / p.height)) for p in found.pictures])[:_SHOWN]
    copies = sorted(
        found.copies,
        key=lambda c: found.pictures[c[0]].records == found.pictures[c[1]].records,
    )[:_SHOWN]
    first = np.searchsorted(owners, np.arange(len(found.pictures)))  # the first object of each

    def marked(order: np.ndarray) -> list[_Marked]:
        """Returns the pictures of the first objects of `order`, each picture only once."""
        chosen: dict[int, int] = {}
        for k in order[: 20 * _SHOWN].tolist():
            chosen.setdefault(int(owners[k]), k - int(first[owners[k]]))
        pictures: list[_Marked] = [(k, (own,)) for k, own in chosen.items()]
        return pictures[:_SHOWN]

    same: dict[int, _Marked] = {k: (k, (a, b)) for k, a, b in found.same_boxes}
    groups: dict[str, list[_Marked]] = {
        "small": marked(np.argsort(side, kind="stable")),
        "elongated": marked(np.argsort(-np.abs(np.log(np.maximum(shape, 1e-9))), kind="stable")),
        "crowded": [(int(k), ()) for k in crowded],
        "odd": [(int(k), ()) for k in odd_images],
        "same": list(same.values())[:_SHOWN],
        "copies": [(index, ()) for a, b, _ in copies for index in (a, b)],
    }
    pictures = _small_pictures(found, {item for group in groups.values() for item in group})

    def figures(name: str) -> str:
        return "".join(pictures[item] for item in groups[name])

    height, width = found.config.input_size
    unmatched, total = int(found.unmatched.sum()), max(len(side), 1)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(found.records[0])}"
        f"</title><style>{_STYLE}</style><h1>Inspection of {_text(', '.join(found.records))}</h1>",
        _sets(found),
        "<h2>Classes</h2>",
        _note(
            len(found.rare),
            f"{len(found.rare)} classes have fewer than {FEW_OBJECTS} objects in a set: "
            + ", ".join(f"{label} ({count}) in {records}" for records, label, count in found.rare),
            "Every class has enough objects to begin with.",
        ),
        _table(["class", *found.records], zip(found.labels, *found.class_counts, strict=True)),
        f"<h2>Sizes and shapes at an input of {width} x {height} pixels</h2>",
        _note(
            unmatched,
            f"{unmatched} of {len(side)} objects ({100 * unmatched / total:.1f}%) have no default "
            "box with an IoU of 0.5. Each of them is matched to its best default box only: see "
            "fit-boxes.",
            "Every object has a default box with an IoU of 0.5.",
        ),
        "<div class=columns>",
        _histogram("side, pixels", side, SIZE_LIMITS, found.unmatched),
        _histogram("width / height", shape, SHAPE_LIMITS, found.unmatched),
        _histogram(
            "objects in an image",
            np.array([len(p.boxes) for p in found.pictures], float),
            (1, 2, 3, 5, 9, 17, 33, 65),
            None,
        ),
        "</div><h2>Where the centers of the objects lie</h2>",
        _heatmap(found.centers),
        "<h2>Pictures that look alike</h2>",
        _note(
            len(found.copies),
            f"{len(found.copies)} pairs, {found.copies_across} of them in two sets. AP on copies "
            "of training images is too high. The first pairs:",
            "No two pictures look alike.",
        ),
        _pairs(found, copies, pictures),
        "<h2>Almost identical boxes of one class</h2>",
        _note(
            len(found.same_boxes),
            f"{len(found.same_boxes)} pairs have an IoU of {SAME_BOX} or more: one of the two is "
            "usually a mistake.",
            f"No two boxes of one class have an IoU of {SAME_BOX} or more.",
        ),
        figures("same"),
        "<h2>The smallest objects</h2>",
        figures("small"),
        "<h2>The longest objects</h2>",
        figures("elongated"),
        "<h2>The most objects</h2>",
        figures("crowded"),
        "<h2>The longest images</h2>",
        figures("odd"),
    ]
    return "\n".join(parts) + "\n</html>\n"


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _note(problems: int, bad: str, good: str) -> str:
    return f"<p class={'warn' if problems else 'good'}>{_text(bad if problems else good)}</p>"


def _table(head: Iterable[object], rows: Iterable[Sequence[object]]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{_text(cell)}" for cell in head)]
    lines += ["<tr>" + "".join(f"<td>{_text(cell)}" for cell in row) for row in rows]
    return "".join(lines) + "</table>"


def _sets(found: Inspection) -> str:
    rows = []
    for k, (records, card) in enumerate(zip(found.records, found.cards, strict=True)):
        own = [p for p in found.pictures if p.records == k]
        sizes = {(p.width, p.height) for p in own}
        objects = [len(p.boxes) for p in own]
        rows.append(
            (
                records,
                len(own),
                sum(objects),
                card.num_difficult,
                sum(n == 0 for n in objects),
                f"{min(sizes)[0]} to {max(sizes)[0]}" if sizes else "",
                f"{min(h for _, h in sizes)} to {max(h for _, h in sizes)}" if sizes else "",
            )
        )
    head = ("records", "images", "objects", "difficult", "without objects", "width", "height")
    notes = [
        f"{len(names)} x {reason} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for card in found.cards
        for log in (card.skipped, card.adjusted)
        for reason, names in log.items()
    ]
    items = "".join(f"<li>{_text(note)}" for note in notes)
    return _table(head, rows) + (
        f"<p>While the records were written:<ul>{items}</ul>" if items else ""
    )


def _histogram(
    title: str, values: np.ndarray, limits: Sequence[float], marked: np.ndarray | None
) -> str:
    spans = list(itertools.pairwise([0.0, *limits, np.inf]))
    masks = [(values >= low) & (values < high) for low, high in spans]
    largest = max(1, *(int(mask.sum()) for mask in masks))
    rows = []
    for (low, high), mask in zip(spans, masks, strict=True):
        span = f"{low:.3g} to {high:.3g}" if np.isfinite(high) else f"from {low:.3g}"
        if not title.endswith(("pixels", "height")):  # a count
            last = high - 1
            span = span if np.isinf(high) else f"{low:g}" if low == last else f"{low:g} to {last:g}"
        bar = f"<span class=bar style='width:{round(8 * mask.sum() / largest, 2)}rem'></span>"
        share = "" if marked is None else f"<td>{int((mask & marked).sum())}"
        rows.append(f"<tr><td>{span}<td>{int(mask.sum())}{share}<td style='text-align:left'>{bar}")
    head = "" if marked is None else "<th>IoU below 0.5"
    return f"<table><tr><th>{_text(title)}<th>number{head}<th>{''.join(rows)}</table>"


def _heatmap(centers: np.ndarray) -> str:
    largest = max(int(centers.max()), 1)
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td title={count} style='background:rgb(37 99 235 / {count / largest:.2f})'>"
            for count in row
        )
        for row in centers.tolist()
    )
    return f"<table class=heat>{rows}</table>"


def _pairs(
    found: Inspection, copies: Sequence[tuple[int, int, bool]], pictures: dict[_Marked, str]
) -> str:
    blocks = []
    for a, b, equal in copies:
        across = found.pictures[a].records != found.pictures[b].records
        kind = "equal files" if equal else "similar pictures"
        where = "in two sets" if across else "in one set"
        blocks.append(f"<div><b>{kind}, {where}</b><br>{pictures[a, ()]}{pictures[b, ()]}</div>")
    return f"<div class=columns>{''.join(blocks)}</div>"


def _small_pictures(found: Inspection, wanted: set[_Marked]) -> dict[_Marked, str]:
    """Returns the figures of pictures; reads the record sets again."""
    figures = {}
    for number, directory in enumerate(found.records):
        items: dict[str, list[_Marked]] = {}
        for item in wanted:
            if found.pictures[item[0]].records == number:
                items.setdefault(found.pictures[item[0]].image_id, []).append(item)
        if not items:
            continue
        for sample in read_samples(directory):
            for item in items.get(sample.image_id, ()):
                figures[item] = _figure(sample, item[1])
    return figures


def _figure(sample: Sample, marked: tuple[int, ...]) -> str:
    image = to_rgb(Image.open(io.BytesIO(sample.image)))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    order = sorted(range(len(sample.boxes)), key=lambda k: k in marked)
    for k in order:
        ymin, xmin, ymax, xmax = sample.boxes[k].tolist()
        left, right = xmin * image.width, xmax * image.width
        top, bottom = ymin * image.height, ymax * image.height
        corners = (left, top, max(left, right - 1), max(top, bottom - 1))
        color = _MARK if k in marked else class_color(int(sample.labels[k]))
        draw.rectangle(corners, outline=color, width=2 if k in marked else 1)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = _text(f"{sample.image_id}, {sample.width} x {sample.height}")
    return (
        f"<figure><img alt='' src='data:image/jpeg;base64,{data}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )
