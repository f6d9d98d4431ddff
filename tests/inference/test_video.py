import json

import numpy as np
import pytest

av = pytest.importorskip("av")

from ssd_keras.drawing import class_color  # noqa: E402
from ssd_keras.inference.detector import Detector  # noqa: E402
from ssd_keras.inference.video import detect_video, frames_of, open_video  # noqa: E402

SIZE = (65, 97)  # odd, so that the encoder needs even sides


def write_video(path, num_frames=10, rate=5):
    """Writes a video of gray frames; the level of frame k is 10 k."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.bit_rate = 2_000_000
        for k in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * k, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def run_pixels(images):
    """Returns one detection per frame; its score is the mean level of the frame / 100."""
    return [
        {
            "boxes": np.float32([[0.25, 0.25, 0.75, 0.75]]),
            "scores": np.float32([image.mean() / 100]),
            "classes": np.int32([1]),
        }
        for image in images
    ]


DETECTOR = Detector(("cat",), None, None, run_pixels)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_frames_and_times(tmp_path):
    with open_video(write_video(tmp_path / "v.mp4")) as container:
        frames = list(frames_of(container, every=3))
    assert [f.number for f in frames] == [0, 3, 6, 9]
    assert [f.seconds for f in frames] == pytest.approx([0, 0.6, 1.2, 1.8])
    assert [round(f.pixels.mean() / 10) for f in frames] == [0, 3, 6, 9]
    with open_video(write_video(tmp_path / "v.mp4")) as container:
        assert len(list(frames_of(container, max_frames=2))) == 2


def test_json_lines_and_annotated_video(tmp_path):
    source = write_video(tmp_path / "v.mp4")
    summary = detect_video(DETECTOR, source, tmp_path / "out", every=2, batch_size=3)
    assert (summary.num_frames, summary.num_detections) == (5, 4)  # the first frame is black
    found = lines(tmp_path / "out" / "v.jsonl")
    assert [(f["frame"], f["time"]) for f in found] == [
        (0, 0.0),
        (2, 0.4),
        (4, 0.8),
        (6, 1.2),
        (8, 1.6),
    ]
    assert found[4]["detections"][0]["score"] == pytest.approx(0.8, abs=0.02)
    assert found[4]["detections"][0]["box_pixels"] == [16, 24, 48, 72]
    with open_video(str(tmp_path / "out" / "v.mp4")) as container:
        frames = list(frames_of(container))
    assert [f.seconds for f in frames] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6], abs=1e-3)
    # The last frame has a box in the color of the class. The second frame (score 0.2) has none.
    edge = frames[4].pixels[16:48, 24].mean(axis=0)
    assert np.abs(edge - class_color(1)).max() < 70
    assert frames[1].pixels[16:48, 24].mean() == pytest.approx(20, abs=6)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["v.jsonl", "v.mp4"]


def test_an_interrupted_video_is_complete(tmp_path):
    calls = []

    def stopped(images):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return run_pixels(images)

    source = write_video(tmp_path / "v.mp4")
    with pytest.raises(KeyboardInterrupt):
        detect_video(Detector(("cat",), None, None, stopped), source, tmp_path, batch_size=2)
    assert len(lines(tmp_path / "v.jsonl")) == 2


def test_odd_sides(tmp_path):
    from ssd_keras.inference.video import Frame, VideoWriter

    writer = VideoWriter(tmp_path / "odd.mp4")
    found = run_pixels([np.full((*SIZE, 3), 90, np.uint8)])[0]
    for k in range(3):
        writer.add(Frame(k, 0.0, np.full((*SIZE, 3), 90, np.uint8)), found, ("cat",))
    writer.close()
    with open_video(str(tmp_path / "odd.mp4")) as container:
        frames = list(frames_of(container))
    assert [f.pixels.shape for f in frames] == [(64, 96, 3)] * 3  # equal times were increased


def test_a_frame_of_one_row_is_refused(tmp_path):
    from ssd_keras.inference.video import Frame, VideoWriter

    frame = Frame(0, 0.0, np.zeros((1, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\(1, 8\) pixels: a video needs 2 x 2 or more"):
        VideoWriter(tmp_path / "thin.mp4").add(frame, run_pixels([frame.pixels])[0], ("cat",))


def test_what_is_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(ValueError, match=f"{name} cannot be opened as a video"):
            open_video(str(tmp_path / name))
    with pytest.raises(ValueError, match="cannot be opened as a video"):
        open_video("camera:99")


def test_every_is_at_least_one(tmp_path):
    with pytest.raises(ValueError, match=r"every \(=0\) must be at least 1"):
        detect_video(DETECTOR, "x.mp4", tmp_path, every=0)
