import os

import pytest

from ssd_keras.files import atomic, remove_leftovers


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
    assert seen == ["new", "old"]  # a kill here loses neither
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
