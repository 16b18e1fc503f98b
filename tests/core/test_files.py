"""Atomic writing, also on a full disk."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import RunError, UserError
from sixfold.core.files import file_problems, folder_of_parts, make_folder, write_atomically


def test_the_old_content_stays_until_the_new_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="no space left on the disk"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_another_refusal_of_the_system_is_told_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*none/file"):
        write_atomically(tmp_path / "none" / "file", b"x")


def test_what_is_written_is_there(tmp_path: Path) -> None:
    data: Any = bytes(range(256)) * 100
    write_atomically(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_folder_that_cannot_be_made_is_the_users_to_change() -> None:
    with pytest.raises(UserError, match=r"--out /proc/a/b: cannot be written \(.*choose another"):
        make_folder(Path("/proc/a/b"))


def test_a_folder_of_parts_goes_with_them(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "part").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), folder_of_parts(tmp_path / "scores") as folder:
        fail(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["folder", "none/file", "/proc/file"])
def test_a_place_where_no_file_can_be_is_told_before_the_work(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (problem,) = file_problems("--machine", tmp_path / place)
    assert re.match(r"--machine /.*(cannot be written|must be a file in a directory)", problem)
    assert file_problems("--machine", tmp_path / "folder/file") == []
    assert list((tmp_path / "folder").iterdir()) == []
