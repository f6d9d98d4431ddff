import os

import pytest

from ssd_keras.files import atomic, check_types, reading, remove_leftovers


def write(path, name, text):
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / name).write_text(text)


def test_a_file_is_whole_or_untouched(tmp_path):
    path = tmp_path / "new" / "a.json"
    with atomic(path) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("1")
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text(f"{1 / 0}")
    assert path.read_text() == "1"
    assert os.listdir(path.parent) == ["a.json"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    write(tmp_path / "model", "old", "1")
    write(tmp_path / "model", "new", "2")
    assert os.listdir(tmp_path / "model") == ["new"]
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path, monkeypatch, error
):
    write(tmp_path / "model", "old", "1")
    replace, seen = os.replace, []

    def fail(source, target):
        if ".old." not in f"{source} {target}":
            seen.extend(sorted(p.name for p in tmp_path.rglob("*") if p.is_file()))
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write(tmp_path / "model", "new", "2")
    assert seen == ["new", "old"]  # a kill at this time loses neither folder
    assert os.listdir(tmp_path / "model") == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_behind_a_link_its_target_is_replaced(tmp_path):
    write(tmp_path / "1", "old", "1")
    (tmp_path / "current").symlink_to(tmp_path / "1")
    write(tmp_path / "current", "new", "2")
    assert os.listdir(tmp_path / "1") == ["new"]
    assert (tmp_path / "current").is_symlink()


def test_leftovers_go_and_nothing_else(tmp_path):
    for name in (".12.last.keras", ".hidden", "12.keras"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".7.model").mkdir()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "12.keras"]


def test_every_error_of_a_parser_names_the_file():
    for error, reason in (
        (KeyError("id"), "'id' is missing"),
        (TypeError("unhashable type: 'dict'"), "unhashable type: 'dict'"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "'utf-8' codec can't decode .*"),
        (AttributeError(), "AttributeError"),
        (ValueError("{{node a}} line 1 [Op:b] name: \nline 2"), "line 1"),
        (
            ValueError("Graph:\n\nat x: assertion failed: [b] [c]\n\t [[{{node d}}]] [Op:e]"),
            r"b\] \[c",
        ),
    ):
        message = rf"^some/x\.json is damaged \({reason}\): write it again$"
        with (
            pytest.raises(ValueError, match=message),
            reading("some/x.json", "write it again", fault="is damaged"),
        ):
            raise error
    named = ValueError("line 3 of some/x.json is odd")
    for error in (
        named,
        FileNotFoundError(2, "missing", "some/x.json"),
        ImportError("no matplotlib"),
    ):
        with pytest.raises(type(error)) as raised, reading("some/x.json", "write it again"):
            raise error
        assert raised.value is error


def test_a_full_disk_is_named(tmp_path):
    """Some writers raise the error of the operating system without a file name."""
    path = tmp_path / "a.npz"
    for error in (
        OSError(28, "No space left on device"),
        RuntimeError("Can't write data (No space left on device)"),
    ):
        message = r"No space left on device; free .*a\.npz"
        with pytest.raises(OSError, match=message) as raised, atomic(path):
            raise error
        assert raised.value.errno == 28
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("value", "kind", "valid"),
    [
        (3, int, True),
        (True, int, False),
        (3, float, True),
        (float("nan"), float, False),
        ("3", float, False),
        (["a", "b"], tuple[str, ...], True),
        (["a", 1], tuple[str, ...], False),
        ("ab", tuple[str, ...], False),
        (None, tuple[int, ...] | None, True),
        ({"a": 1}, dict[str, int], True),
        ({"a": "1"}, dict[str, int], False),
        ({"a": ["b"]}, dict[str, list[str]], True),
        (1, dict[str, int], False),
    ],
)
def test_types_of_json_values(value, kind, valid):
    if valid:
        check_types({"x": value}, {"x": kind})
    else:
        with pytest.raises(ValueError, match=r"'x' \(=.*\) must be of type"):
            check_types({"x": value}, {"x": kind})
    with pytest.raises(ValueError, match="'y' is missing"):
        check_types({"x": value}, {"y": kind})
