"""The page of an inspection: one HTML file with pictures, which needs no network."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ssd_keras.data.box_coverage import SHAPE_LIMITS, SIZE_LIMITS
from ssd_keras.data.inspection import FEW_OBJECTS, SAME_BOX, Inspection
from ssd_keras.data.records import read_samples
from ssd_keras.drawing import class_color
from ssd_keras.images import to_rgb

_SIDE = 220  # pixels of the longer side of a small picture
_SHOWN = 8  # pictures of each finding
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
.columns { display: flex; flex-wrap: wrap; gap: 3rem; }
"""


def inspection_page(found: Inspection) -> str:
    """Writes the facts as an HTML page. All names in it are escaped."""
    owners = found.owners
    side = np.sqrt(np.prod(found.coverage.sizes, axis=1))
    shape = found.coverage.sizes[:, 1] / np.maximum(found.coverage.sizes[:, 0], 1e-9)
    crowded = np.argsort([-len(p.boxes) for p in found.pictures], kind="stable")[:_SHOWN]
    elongated = np.argsort(-np.abs(np.log(np.maximum(shape, 1e-9))), kind="stable")
    smallest = np.argsort(side, kind="stable")
    odd_images = np.argsort([-abs(np.log(p.width / p.height)) for p in found.pictures])[:_SHOWN]
    copies = sorted(
        found.copies,
        key=lambda c: found.pictures[c[0]].records == found.pictures[c[1]].records,
    )[:_SHOWN]
    groups = {
        "small": list(dict.fromkeys(owners[smallest].tolist()))[:_SHOWN],
        "elongated": list(dict.fromkeys(owners[elongated].tolist()))[:_SHOWN],
        "crowded": crowded.tolist(),
        "odd": odd_images.tolist(),
        "same": list(dict.fromkeys(k for k, _, _ in found.same_boxes))[:_SHOWN],
        "copies": [index for a, b, _ in copies for index in (a, b)],
    }
    pictures = _small_pictures(found, {k for group in groups.values() for k in group})

    def figures(name: str) -> str:
        return "".join(pictures[k] for k in groups[name])

    height, width = found.config.input_size
    unmatched, total = int(found.unmatched.sum()), max(len(side), 1)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(found.records[0])}"
        f"</title><style>{_STYLE}</style><h1>Inspection of {_text(', '.join(found.records))}</h1>",
        _sets(found),
        "<h2>Classes</h2>",
        _note(
            len(found.rare),
            f"{len(found.rare)} classes of a set have fewer than {FEW_OBJECTS} objects: "
            + ", ".join(f"{label} ({count}) in {records}" for records, label, count in found.rare),
            "Every class has enough objects to begin with.",
        ),
        _table(["class", *found.records], zip(found.labels, *found.class_counts, strict=True)),
        f"<h2>Sizes and shapes at an input of {width} x {height} pixels</h2>",
        _note(
            unmatched,
            f"{unmatched} of {len(side)} objects ({100 * unmatched / total:.1f}%) have no default "
            "box with an IoU of 0.5. Only their nearest default box learns them: see fit-boxes.",
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
            f"{len(found.copies)} pairs, {found.copies_across} of them in two sets: a score on "
            "copies of training images is too high. The first pairs:",
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
    edges = [0.0, *limits, np.inf]
    rows = []
    counts = [
        ((values >= low) & (values < high)) for low, high in zip(edges, edges[1:], strict=False)
    ]
    largest = max(max(int(mask.sum()) for mask in counts), 1)
    for low, high, mask in zip(edges, edges[1:], counts, strict=False):
        span = f"{low:.3g} to {high:.3g}" if np.isfinite(high) else f"from {low:.3g}"
        bar = f"<span class=bar style='width:{round(12 * mask.sum() / largest, 2)}rem'></span>"
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
    found: Inspection, copies: Sequence[tuple[int, int, bool]], pictures: dict[int, str]
) -> str:
    blocks = []
    for a, b, equal in copies:
        across = found.pictures[a].records != found.pictures[b].records
        kind = "equal files" if equal else "similar pictures"
        where = "in two sets" if across else "in one set"
        blocks.append(f"<div><b>{kind}, {where}</b><br>{pictures[a]}{pictures[b]}</div>")
    return f"<div class=columns>{''.join(blocks)}</div>"


def _small_pictures(found: Inspection, wanted: set[int]) -> dict[int, str]:
    """Returns the figures of pictures by their index; reads the record sets again."""
    indices = {(found.pictures[k].records, found.pictures[k].image_id): k for k in wanted}
    figures = {}
    for number, directory in enumerate(found.records):
        if not any(records == number for records, _ in indices):
            continue
        for sample in read_samples(directory):
            index = indices.get((number, sample.image_id))
            if index is not None:
                image = to_rgb(Image.open(io.BytesIO(sample.image)))
                caption = f"{sample.image_id}, {sample.width} x {sample.height}"
                figures[index] = _figure(image, sample.boxes, sample.labels, caption)
    return figures


def _figure(image: Image.Image, boxes: np.ndarray, labels: np.ndarray, caption: str) -> str:
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for (ymin, xmin, ymax, xmax), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        left, right = xmin * image.width, xmax * image.width
        top, bottom = ymin * image.height, ymax * image.height
        corners = (left, top, max(left, right - 1), max(top, bottom - 1))
        draw.rectangle(corners, outline=class_color(label), width=1)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f"<figure><img alt='' src='data:image/jpeg;base64,{data}'>"
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )
