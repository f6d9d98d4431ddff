import io

import pytest
from PIL import Image

from ssd_keras.inference.inputs import find_inputs
from tests.data_sets import encoded, write


def test_images_videos_and_streams(tmp_path):
    write(tmp_path / "a.jpg", encoded())
    write(tmp_path / "film.MP4", b"")
    words = [str(tmp_path / "a.jpg"), "rtsp://host/1", str(tmp_path / "*.MP4"), "camera:0"]
    inputs = find_inputs(words)
    assert inputs.images == [tmp_path / "a.jpg"]
    assert inputs.videos == [str(tmp_path / "film.MP4"), "rtsp://host/1", "camera:0"]


def test_folders_are_searched_for_images_only(tmp_path):
    write(tmp_path / "in" / "a.jpg", encoded())
    write(tmp_path / "in" / "film.mp4", b"")
    write(tmp_path / "in" / "notes.txt", "x")
    assert find_inputs([str(tmp_path / "in")]).images == [tmp_path / "in" / "a.jpg"]


def test_stdin_is_an_image_or_a_list_of_names(tmp_path):
    for image_format in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"):
        content = encoded(image_format=image_format)
        assert find_inputs(["-"], content).stdin_image == content
    write(tmp_path / "a.jpg", encoded())
    inputs = find_inputs(["-"], f"{tmp_path / 'a.jpg'}\n\nrtsp://host/1\n".encode())
    assert (inputs.images, inputs.videos) == ([tmp_path / "a.jpg"], ["rtsp://host/1"])
    assert inputs.stdin_image is None
    with pytest.raises(ValueError, match="stdin is neither an image nor a list of file names"):
        find_inputs(["-"], b"\xff\x00\x81")


def test_a_named_file_of_another_kind_is_refused(tmp_path):
    write(tmp_path / "notes.txt", "no image")
    with pytest.raises(ValueError, match=r"notes.txt is neither an image nor a video"):
        find_inputs([str(tmp_path / "notes.txt")])
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    write(tmp_path / "upload", buffer.getvalue())  # an image without a suffix
    assert find_inputs([str(tmp_path / "upload")]).images == [tmp_path / "upload"]
    with pytest.raises(ValueError, match="inputs is empty"):
        find_inputs([])
