import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras import drawing
from ssd_keras.data.records import Sample
from ssd_keras.drawing import class_color, contact_sheet, draw_detections
from ssd_keras.evaluation.plots import line_color, plot_precision_recall
from ssd_keras.evaluation.voc import voc_average_precision
from ssd_keras.training.plots import plot_history

GRAY = (90, 90, 90)


def draw(size, boxes, labels=("cat", "dog"), scores=(0.9,), image=None):
    image = Image.new("RGB", size, GRAY) if image is None else image
    classes = np.ones(len(boxes), int)
    return np.asarray(draw_detections(image, np.array(boxes), classes, labels, np.array(scores)))


def colored_pixels(picture, class_id=1):
    """Returns the rows and the columns that contain pixels of the class's color."""
    rows, columns = np.nonzero((picture == class_color(class_id)).all(axis=-1))
    return set(rows.tolist()), set(columns.tolist())


def count_letter_pixels(picture):
    """Counts the pixels that have neither the background's nor the class's color."""
    return int(((picture != GRAY).any(-1) & (picture != class_color(1)).any(-1)).sum())


def test_a_box_is_drawn_at_its_coordinates():
    image = np.full((200, 400, 3), GRAY, np.uint8)
    picture = draw(None, [[0.5, 0.25, 0.75, 0.5]], image=image)
    assert picture.shape == (200, 400, 3)
    for y, x in ((100, 150), (150, 150), (120, 100), (120, 200)):  # centers of the four sides
        assert tuple(picture[y, x]) == class_color(1)
    assert tuple(picture[130, 150]) == GRAY  # inside
    assert (image == GRAY).all()  # the caller's image is not drawn on


@pytest.mark.parametrize(
    "box", [[-0.5, 0.9, 0.1, 1.5], [0.95, -0.3, 1.0, 0.02], [-1, -1, 2, 2], [0.99, 0.99, 1, 1]]
)
@pytest.mark.parametrize("size", [(300, 200), (120, 120)])
def test_tag_stays_inside_the_picture(box, size):
    label = "wide label"
    alone = draw(size, [[0.45, 0.1, 0.6, 0.2]], [label])
    picture = draw(size, [box], [label])
    assert count_letter_pixels(alone) > 100
    assert count_letter_pixels(picture) == pytest.approx(count_letter_pixels(alone), rel=0.05)


def test_tag_stays_inside_a_low_picture():
    flat, high = draw((200, 14), [[0.5, 0.1, 0.9, 0.9]]), draw((200, 90), [[0.5, 0.1, 0.9, 0.9]])
    assert count_letter_pixels(flat) == pytest.approx(count_letter_pixels(high), rel=0.05)


def test_lines_and_tags_grow_with_the_picture():
    heights = []
    for side in (150, 1500):
        picture = draw((side, side), [[0.5, 0.2, 0.51, 0.3]])
        rows, _ = colored_pixels(picture)
        heights.append(max(rows) - min(rows))
    assert 5 < heights[1] / heights[0] < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (30, 20), (4000, 3)])
def test_any_size(size):
    assert draw(size, [[0, 0, 1, 1]]).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_any_mode(mode):
    image = Image.new(mode, (60, 50))
    assert draw(None, [[0.2, 0.2, 0.8, 0.8]], image=image).shape == (50, 60, 3)


def test_labels_in_other_scripts_are_drawn():
    pictures = [draw((200, 100), [[0.5, 0, 1, 1]], [label]) for label in ("кот", "σκύ", "größe")]
    missing = draw((200, 100), [[0.5, 0, 1, 1]], ["\uffff\uffff\uffff"])
    for picture in pictures:
        assert (picture != missing).any()
    assert (pictures[0] != pictures[1]).any()


def test_the_best_is_on_top():
    boxes, classes = np.array([[0.2, 0.2, 0.8, 0.8]] * 2), np.array([1, 2])
    for scores, top in (([0.9, 0.1], 1), ([0.1, 0.9], 2)):
        picture = draw_detections(Image.new("RGB", (90, 90)), boxes, classes, "ab", scores)
        assert picture.getpixel((50, 72)) == class_color(top)


def test_an_image_without_detections_is_unchanged():
    assert (draw((40, 30), np.zeros((0, 4)), scores=()) == GRAY).all()


def test_colors_differ():
    colors = np.array([class_color(k) for k in range(1, 21)])
    distance = np.abs(colors[:, None] - colors[None]).sum(-1) + 999 * np.eye(20, dtype=int)
    assert distance.min() > 60
    assert len({class_color(k) for k in range(1, 202)}) > 190


def test_padding_is_not_drawn():
    image = Image.new("RGB", (40, 30))
    boxes = np.array([[0.2, 0.2, 0.8, 0.8], [0, 0, 0, 0]])
    alone = draw_detections(image, boxes[:1], np.array([1]), ["cat"], np.array([0.5]))
    padded = draw_detections(image, boxes, np.array([1, 0]), ["cat"], np.array([0.5, 0]))
    assert np.array_equal(alone, padded)
    assert np.asarray(alone).any()


def test_invalid_inputs_are_refused():
    image = Image.new("RGB", (9, 9))
    with pytest.raises(ValueError, match=r"boxes \(1\), classes \(2\) and scores \(none\)"):
        draw_detections(image, np.zeros((1, 4)), np.array([1, 1]), ["cat"])
    for class_id in (-1, 2):
        with pytest.raises(ValueError, match=f"classes has {class_id}, but must be from 1 to 1"):
            draw_detections(image, np.zeros((1, 4)), np.array([class_id]), ["cat"])
    with pytest.raises(ValueError, match=r"images \(0\)"):
        contact_sheet([])
    with pytest.raises(ValueError, match="no rows to plot"):
        plot_history([], "history.png")


def test_contact_sheet():
    large, small = Image.new("RGB", (640, 320), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 255, 0))
    sheet = np.asarray(contact_sheet([large, small, small], columns=2, cell=64))
    assert sheet.shape == (2 * 65 + 1, 2 * 65 + 1, 3)
    assert (sheet == (255, 0, 0)).all(-1).sum() == 64 * 32
    assert (sheet == (0, 255, 0)).all(-1).sum() == 2 * 64
    assert contact_sheet([small], columns=9, cell=64).size == (66, 66)


def test_plot_history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(
        "iteration,loss,localization_loss,confidence_loss,learning_rate,val_mean_ap\n"
        "10,9,3,6,0.001,\n20,5,2,3,0.001,0.25\n"
    )
    plot_history(path, tmp_path / "a.png")
    plot_history([{"iteration": 1, "loss": 2.0}], tmp_path / "b.png")
    for name, height in (("a", 900), ("b", 600)):  # without AP, the figure has no panel for it
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (800, height)
    assert len(list(tmp_path.iterdir())) == 3  # no temporary file stays


def test_plot_precision_recall(tmp_path):
    truth = Sample(b"", "a", 9, 9, np.array([[0, 0, 1, 1.0]]), np.ones(1, int), np.zeros(1, bool))
    found = {"boxes": truth.boxes, "scores": np.ones(1), "classes": truth.labels}
    result = voc_average_precision([found], [truth], ["cat", "dog"])
    plot_precision_recall(result, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (800, 600)


@pytest.mark.parametrize("size", [(100, 100), (300, 200), (1000, 800), (8000, 6000)])
def test_tags_do_not_cover_each_other_where_there_is_room(size):
    """The boxes differ by one pixel: without a rule, all tags would be at the same place."""
    font = drawing._font(max(9, round(min(size) / 32)))
    width, height = size
    boxes = [(width * 0.3 + k, height * 0.3 + k, width * 0.7, height * 0.7) for k in range(4)]
    tags = drawing._place_tags(["cat"] * 4, boxes, font, size)
    for k, (left, top, right, bottom) in enumerate(tags):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        for other in tags[:k]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_the_tag_of_the_highest_score_has_the_first_place():
    font = drawing._font(9)
    box = (50, 50, 150, 150)
    *_, best = drawing._place_tags(["cat"] * 3, [box] * 3, font, (200, 200))
    assert best == drawing._place_tags(["cat"], [box], font, (200, 200))[0]
    assert best[3] == 50  # above the box


def test_a_crowd_of_tags_still_lies_in_the_picture():
    boxes = np.tile([[0.2, 0.2, 0.8, 0.8]], (60, 1))
    picture = draw((100, 100), boxes, scores=np.linspace(0.1, 0.9, 60))
    assert picture.shape == (100, 100, 3)


def test_tensors_and_float_images_are_drawn_as_arrays_are():
    pixels = np.full((40, 60, 3), 200, np.uint8)
    boxes, classes, scores = np.array([[0.1, 0.1, 0.8, 0.8]]), np.array([1]), np.array([0.5])
    want = np.asarray(draw_detections(pixels, boxes, classes, ["a"], scores))
    tensors = [tf.constant(value) for value in (boxes, classes)]
    for image in (tf.constant(pixels), tf.constant(pixels, tf.float32), pixels.astype(float)):
        got = draw_detections(image, *tensors, ["a"], tf.constant(scores))
        np.testing.assert_array_equal(np.asarray(got), want)


def test_says_that_a_batch_is_too_much():
    pixels, boxes = np.zeros((40, 60, 3), np.uint8), np.zeros((1, 1, 4))
    with pytest.raises(
        ValueError, match=r"image has shape \(1, 40, 60, 3\), but must be one image"
    ):
        draw_detections(pixels[None], boxes[0], [1], ["a"])
    with pytest.raises(ValueError, match="draw one image of a batch at a time"):
        draw_detections(pixels, boxes, np.ones((1, 1)), ["a"])


def test_curves_are_readable_on_white():
    """Class 2 is a light green on pictures; its line is darker, with the same hue."""
    assert class_color(2) == (207, 255, 140)
    assert line_color(1) == tuple(channel / 255 for channel in class_color(1))  # dark already
    for class_id in range(1, 100):
        color = line_color(class_id)
        linear = np.where(
            np.array(color) <= 0.03928,
            np.array(color) / 12.92,
            ((np.array(color) + 0.055) / 1.055) ** 2.4,
        )
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3
    np.testing.assert_allclose(
        np.divide(line_color(2), line_color(2)[1]), np.array([207, 255, 140]) / 255, atol=1e-6
    )
