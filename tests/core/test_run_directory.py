"""Who may write to a run directory, and what a crash leaves."""

import json
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.core.life_cycle import _differences, _flat
from sixfold.core.run_directory import (
    JsonLines,
    RankFiles,
    RunDirectory,
    read_json_lines,
)
from sixfold.core.run_store import SupersededError


def test_attempts_count_up_and_an_older_one_may_write_nothing(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    first = directory.claim()
    old = RankFiles(directory.ticket(), attempt=first, rank=0, host="here")
    old.write_json("note.json", {"by": "old"})
    second = directory.claim()
    new = RankFiles(directory.ticket(), attempt=second, rank=0, host="here")
    assert (first, second) == (1, 2)
    with pytest.raises(SupersededError, match="superseded by attempt 2"):
        old.write_json("note.json", {"by": "zombie"})
    with pytest.raises(SupersededError):
        old.write_bytes("weights", b"zombie")
    new.write_json("note.json", {"by": "new"})
    assert json.loads((tmp_path / "run" / "note.json").read_text()) == {"by": "new"}
    assert not (tmp_path / "run" / "weights").exists()


def test_attempts_go_on_counting_in_a_new_launcher(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        directory = RunDirectory(tmp_path)
        assert directory.claim() == expected


def test_a_log_goes_on_behind_the_checkpoint_and_a_zombies_lines_vanish(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    zombie = JsonLines(path, up_to_step=0)
    zombie.append(*({"step": step, "by": 1} for step in range(1, 6)))
    survivor = JsonLines(path, up_to_step=3)
    zombie.append({"step": 6, "by": 1})
    survivor.append({"step": 4, "by": 2})
    zombie.close()
    survivor.close()
    assert [(line["step"], line["by"]) for line in read_json_lines(path)] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 2),
    ]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n[3]\nnull\n{"step": 2, "lo')
    assert read_json_lines(path) == [{"step": 1}]
    assert read_json_lines(tmp_path / "none") == []


def test_clearing_removes_the_run_and_nothing_of_the_users(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    directory.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "run").create()


def test_differences_name_the_options() -> None:
    old = {"training": {"batch_size": 10, "seed": 0}}
    new = {"training": {"batch_size": 20, "seed": 0}}
    assert _differences(_flat(old), _flat(new)) == ["--batch-size: 10 -> 20"]


def test_what_is_somebody_elses_is_told_apart_from_a_run(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "net.onnx").touch()
    (tmp_path / "notes.txt").touch()
    directory = RunDirectory(tmp_path)
    assert directory.foreign_files() == ["logs"]
    assert directory.foreign_files("*.onnx") == ["logs", "net.onnx"]
    (tmp_path / "config.json").write_text("{}")
    assert directory.foreign_files("*.onnx") == []
