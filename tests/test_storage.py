"""Folders written aside: the old one or the new one, and nothing of what was killed is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scdiffaug import storage


def _fill(folder: Path, text: str) -> None:
    with storage.written_aside(folder) as aside:
        (aside / "file").write_text(text)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _killed_while_writing(folder: Path) -> str:
    """The folder that a process leaves aside that is killed while it writes there."""
    script = f"""
import os, signal
from pathlib import Path
from scdiffaug.storage import written_aside
with written_aside(Path({str(folder)!r})) as aside:
    print(aside.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode < 0
    return run.stdout.strip()


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    _fill(tmp_path / "model", "one")
    _fill(tmp_path / "model", "two")
    assert (tmp_path / "model" / "file").read_text() == "two"
    assert _names(tmp_path) == ["model"]


def test_a_folder_is_open_to_whom_other_folders_are(tmp_path: Path) -> None:
    (tmp_path / "ordinary").mkdir()
    _fill(tmp_path / "model", "one")
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_what_a_killed_process_left_is_swept_up(tmp_path: Path) -> None:
    left = _killed_while_writing(tmp_path / "model")
    assert _names(tmp_path) == [left]
    _fill(tmp_path / "model", "one")
    assert _names(tmp_path) == ["model"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    with storage.written_aside(tmp_path / "model") as mine:
        (mine / "file").write_text("mine")
        _fill(tmp_path / "model", "another's")
        assert (mine / "file").exists()
    assert (tmp_path / "model" / "file").read_text() == "mine"
    assert _names(tmp_path) == ["model"]


def test_nothing_is_swept_where_locks_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = _killed_while_writing(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    _fill(tmp_path / "model", "one")
    assert _names(tmp_path) == [left, "model"]


def test_two_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    def write(aside: Path) -> None:
        aside.write_text("mine, at first")
        storage.write_whole(tmp_path / "file", lambda other: other.write_text("another's"))
        assert aside.read_text() == "mine, at first"
        aside.write_text("mine")

    storage.write_whole(tmp_path / "file", write)
    assert (tmp_path / "file").read_text() == "mine"
    assert _names(tmp_path) == ["file"]


def test_a_folder_that_was_swept_up_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = storage._lock

    def slow_lock(folder: Path, **how: bool) -> int | None:
        monkeypatch.setattr(storage, "_lock", lock)
        storage.write_whole(tmp_path / "file", lambda aside: aside.write_text("another's"))
        return lock(folder, **how)

    monkeypatch.setattr(storage, "_lock", slow_lock)
    storage.write_whole(tmp_path / "file", lambda aside: aside.write_text("mine"))
    assert (tmp_path / "file").read_text() == "mine"
    assert _names(tmp_path) == ["file"]


@pytest.mark.parametrize("role", ["old", "new"])
def test_folders_of_names_that_begin_alike_are_left_alone(tmp_path: Path, role: str) -> None:
    others = [
        f".model.{role}-v2.{role}-abcdefgh",
        f".model.{role}-short",
        f".modelx.{role}-abcdefgh",
    ]
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("another's")
    _fill(tmp_path / "model", "one")
    _fill(tmp_path / "model", "two")
    assert _names(tmp_path) == sorted([*others, "model"])
    assert storage.standing(tmp_path / "absent") == tmp_path / "absent"


def test_the_old_folder_is_put_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(tmp_path / "model", "one")
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if ".new-" in Path(source).name:
            raise PermissionError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(PermissionError):
        _fill(tmp_path / "model", "two")
    assert (tmp_path / "model" / "file").read_text() == "one"
    assert _names(tmp_path) == ["model"]


def test_what_was_to_be_replaced_is_read_where_nothing_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place, text in enumerate(("older", "old")):
        waiting = tmp_path / f".model.old-abcdefg{place}"
        waiting.mkdir()
        (waiting / "file").write_text(text)
        os.utime(waiting, (place, place))
    (tmp_path / ".model.old-abcdefg9").mkdir()
    assert storage.is_left_aside(tmp_path / "model")
    standing = storage.standing(tmp_path / "model")
    assert (standing / "file").read_text() == "old"
    assert "is missing as a save was interrupted" in caplog.text
    _fill(tmp_path / "model", "new")
    assert storage.standing(tmp_path / "model") == tmp_path / "model"
    assert not storage.is_left_aside(tmp_path / "model")
    assert _names(tmp_path) == ["model"]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage.written_aside(tmp_path / "model") as aside:
        (aside / "file").write_text(str(1 / 0))
    assert _names(tmp_path) == []
    with pytest.raises(OSError, match="full"):
        storage.write_whole(tmp_path / "file", _on_a_full_disk)
    assert _names(tmp_path) == []


def _on_a_full_disk(path: Path) -> None:
    path.write_text("ha")
    raise OSError("disk full")


def test_a_folder_is_made_before_anything_is_tried_in_it(tmp_path: Path) -> None:
    place = tmp_path / "not" / "there"
    storage.check_writable(place)
    assert not any(place.iterdir())
    storage.check_writable(place)


def test_the_seal_of_a_description_does_not_hang_on_the_order_of_its_keys(tmp_path: Path) -> None:
    """JSON has none, and other programs write it anew."""
    storage.write_model(tmp_path / "model", {}, {"one": 1, "two": 2}, adata=None, overwrite=False)
    path = tmp_path / "model" / "model.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(said.items())), indent=1))
    assert storage.read_description(tmp_path / "model") == said
