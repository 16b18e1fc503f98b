from pathlib import Path

import fsspec
import pytest

from sixfold.core.errors import UserError
from sixfold.data import paths
from sixfold.data.file_tree import fingerprint


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.absolute("a/../b") == str(tmp_path / "b")
    assert paths.absolute("~/b/") == "/home/someone/b"
    assert paths.absolute("file:///data/x") == "/data/x"
    assert paths.absolute("s3://bucket/x/") == "s3://bucket/x"


def test_folders_are_listed_alike_here_and_remotely(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b/c/d.txt", "b/e.txt", "a.txt", ".hidden/x", "b/.DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
        memory.pipe_file(f"/listed/{name}", b"12345")
    here, there = paths.walk(str(tmp_path)), paths.walk("memory://listed")
    assert [entry.name for entry in here] == ["a.txt", "b", "b/c", "b/c/d.txt", "b/e.txt"]
    assert [(e.name, e.is_folder) for e in here] == [(e.name, e.is_folder) for e in there]
    top = [entry.name for entry in paths.children("memory://listed")]
    assert top == [entry.name for entry in paths.children(str(tmp_path))]
    assert paths.read_file("memory://listed/a.txt") == paths.read_file(str(tmp_path / "a.txt"))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "a.png").touch()
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.png").touch()
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "other")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set" / "cow").symlink_to(tmp_path / "other")  # a second way to one folder
    (tmp_path / "set" / ".hidden").mkdir()
    (tmp_path / "set" / ".hidden" / "c.png").touch()
    names = [entry.name for entry in paths.walk(str(tmp_path / "set"))]
    twice = ["cow", "cow/b.png", "dog", "dog/b.png"]
    assert names == ["cat", "cat/a.png", *twice, "gone.png"]
    told = [(e.name, e.left_out) for e in paths.walk_all(str(tmp_path / "set")) if e.left_out]
    assert told == [(".hidden", "hidden"), ("again", "a link back to a folder around it")]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/no/such/thing", "no such file or folder"),
        ("memory://no/such/thing", "no such file or folder"),
        ("nosuchprotocol://x/y", "Protocol not known"),
        ("abfs://bucket/x", "Install adlfs"),
    ],
)
def test_what_cannot_be_reached_is_told_in_one_line(path: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        paths.look(path)
    assert error.value.problems[0].startswith(path)
    assert "\n" not in str(error.value)


def test_a_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    file = tmp_path / "cat" / "a.png"
    file.parent.mkdir()
    file.write_bytes(b"abc")
    before = fingerprint(str(tmp_path))
    assert before == fingerprint(str(tmp_path))
    file.write_bytes(b"abcd")
    longer = fingerprint(str(tmp_path))
    (tmp_path / "dog").mkdir()
    assert len({before, longer, fingerprint(str(tmp_path))}) == 3
