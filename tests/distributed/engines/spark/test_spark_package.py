from __future__ import annotations

import importlib
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pyspark")

from sixfold.core.errors import UserError
from sixfold.distributed.engines.spark_package import importable, ship


class FakeContext:
    """The part of a SparkContext by which code travels."""

    def __init__(self, folder: Path) -> None:
        self._temp_dir = str(folder)
        self.listFiles: list[str] = []

    def addPyFile(self, path: str) -> None:  # noqa: N802  Spark's name
        sys.path.insert(1, path)  # as pyspark does
        self.listFiles.append(f"spark://127.0.0.1:4711/files/{Path(path).name}")


@pytest.fixture
def context(tmp_path: Path) -> FakeContext:
    (tmp_path / "spark").mkdir()
    return FakeContext(tmp_path / "spark")


def test_the_package_travels_whole(context: FakeContext) -> None:
    path = list(sys.path)
    assert ship(context, ()) == ()
    assert sys.path == path
    (url,) = context.listFiles
    names = set(zipfile.ZipFile(Path(context._temp_dir, Path(url).name)).namelist())
    assert {
        "sixfold/__init__.py",
        "sixfold/distributed/engines/spark_worker.py",
        "sixfold/py.typed",
    } <= names
    assert not [name for name in names if "__pycache__" in name]


def test_the_same_content_travels_once(context: FakeContext, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    module = tmp_path / "project" / "mine.py"
    module.write_text("VALUE = 1\n")
    first = ship(context, [module])
    assert ship(context, [module]) == first
    assert len(context.listFiles) == 2
    module.write_text("VALUE = 2\n")
    assert ship(context, [module]) != first


def test_a_package_travels_with_its_folder_and_data(context: FakeContext, tmp_path: Path) -> None:
    (tmp_path / "pack" / "sub").mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "sub" / "data.txt").write_text("x")
    (name,) = ship(context, [tmp_path / "pack"])
    names = zipfile.ZipFile(Path(context._temp_dir, name)).namelist()
    assert sorted(names) == ["pack/__init__.py", "pack/sub/data.txt"]


def test_what_cannot_travel_is_named(context: FakeContext, tmp_path: Path) -> None:
    (tmp_path / "note.txt").touch()
    with pytest.raises(UserError) as caught:
        ship(context, [tmp_path / "note.txt", tmp_path / "absent.py"])
    assert len(caught.value.problems) == 2
    assert context.listFiles == []


def test_modules_of_an_archive_are_new_each_time_and_forgotten(tmp_path: Path) -> None:
    """A worker that is used again sees the file of its task, not that of the task before."""
    archives = []
    for value in (1, 2):
        archives.append(str(tmp_path / f"{value}.zip"))
        with zipfile.ZipFile(archives[-1], "w") as zipped:
            zipped.writestr("shipped_module.py", f"VALUE = {value}\n")
    path = list(sys.path)
    seen = []
    for archive in (*archives, archives[0]):
        with importable([archive]):
            seen.append(importlib.import_module("shipped_module").VALUE)
        assert "shipped_module" not in sys.modules
    assert seen == [1, 2, 1]
    assert sys.path == path


def test_an_archive_goes_before_a_module_of_the_same_name_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shipped_module.py").write_text("VALUE = 'stale'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("shipped_module").VALUE == "stale"
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as zipped:
        zipped.writestr("shipped_module.py", "VALUE = 'fresh'\n")
    with importable([str(tmp_path / "new.zip")]):
        assert importlib.import_module("shipped_module").VALUE == "fresh"


def test_a_module_opens_files_beside_itself_and_nothing_is_left(tmp_path: Path) -> None:
    archive = tmp_path / "net.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("shipped_net.py", "import shipped_helper\nPLACE = __file__\n")
        zipped.writestr("shipped_helper.py", "")
        zipped.writestr("data/anchors.json", "[1]")
    path, modules = list(sys.path), set(sys.modules)
    with importable([str(archive)]):
        place = Path(importlib.import_module("shipped_net").PLACE)
        assert place.with_name("data").joinpath("anchors.json").read_text() == "[1]"
    assert sys.path == path
    assert set(sys.modules) == modules
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.zip"]


def test_a_data_folder_with_the_name_of_a_library_does_not_unload_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as zipped:
        zipped.writestr("shipped_net.py", "")
        zipped.writestr("numpy/weights.txt", "")
    numpy = importlib.import_module("numpy")
    with importable([str(tmp_path / "net.zip")]):
        assert sys.modules["numpy"] is numpy
    assert sys.modules["numpy"] is numpy
