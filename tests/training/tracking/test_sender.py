"""A tracker that fails: the training goes on, and what is missing is sent later, or told."""

import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import RunError
from sixfold.core.run_directory import read_json
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.tracking import sender, session
from sixfold.training.tracking.registry import TRACKERS, TrackerSpec
from sixfold.training.tracking.tracker import Point

Configure = Callable[..., TrainConfig]
HERE = "tests.training.tracking.test_sender"


class Memory:
    """A tracker that remembers all, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.run_id = "run-1"
        self.opened: list[str] = []
        self.tables: dict[str, Mapping[str, Any]] = {}
        self.values: list[Point] = []
        self.files: list[str] = []
        self.statuses: list[str] = []
        self.failures = 0
        self.hangs: threading.Event | None = None

    def table(self, name: str, values: Mapping[str, Any]) -> None:
        self.tables[name] = values

    def points(self, points: Sequence[Point]) -> None:
        if self.hangs is not None:
            self.hangs.wait(60)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the server is gone\nand more")
        self.values += points

    def file(self, path: Path) -> None:
        assert path.exists()
        self.files.append(path.name)

    def model(self, directory: Path) -> None:
        assert (directory / "model.safetensors").exists()
        self.files.append("the model")

    def close(self, status: str) -> None:
        self.statuses.append(status)

    def steps(self, name: str) -> list[int]:
        return [point.step for point in self.values if point.name == name]


@dataclass(frozen=True, kw_only=True)
class Remembered(TrackerSpec):
    """Opens one tracker again and again."""

    memory: Memory

    def open(self, directory: Path, run_id: str) -> Memory:
        self.memory.opened.append(run_id)
        return self.memory


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    found = Memory()
    spec = Remembered(
        packages=("json",),
        opened="",
        takes=("config.json", "report.html", "model.safetensors"),
        takes_model=True,
        memory=found,
    )
    monkeypatch.setitem(TRACKERS, "memory", spec)
    monkeypatch.setattr(sender, "POLL_S", 0.01)
    monkeypatch.setattr(sender, "RETRY_S", 0.01)
    return found


class Stopping:
    """Fails at step 4, while the file `fails` is there."""

    def on_step(self, moment: Any) -> None:
        if moment.step == 4 and Path("fails").exists():
            raise ValueError("my own mistake")


def run(config: TrainConfig) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []

    def on_event(event: Mapping[str, Any]) -> None:
        if event["kind"] == "note":
            notes.append(event["text"])

    return train(config, on_event=on_event), [note for note in notes if "--track" in note]


def test_all_is_sent_once(configure: Configure, tmp_path: Path, memory: Memory) -> None:
    config = configure(out=str(tmp_path / "run"), track="memory", workers=2)
    result, notes = run(config)
    assert notes == []
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5, 6]
    assert memory.steps("test/accuracy") == [6]
    assert memory.files == ["config.json", "report.html", "model.safetensors", "the model"]
    assert memory.tables["settings"]["batch_size"] == 40
    assert memory.tables["result"]["weights_sha256"] == result["weights_sha256"]
    assert memory.statuses == ["finished"]
    assert run(config)[1] == []
    assert memory.opened == [""], "nothing is left to send"


def test_a_failure_is_told_once_and_made_good(
    configure: Configure, tmp_path: Path, memory: Memory
) -> None:
    memory.failures = 1
    _, notes = run(configure(out=str(tmp_path / "run"), track="memory", steps=30))
    assert memory.steps("train/loss") == list(range(1, 31))
    assert memory.statuses[-1] == "finished"
    # It may be that the first points are sent at the end: then the second try is another command.
    assert all("ConnectionError: the server is gone" in note for note in notes)
    assert len(notes) <= 1


def test_what_was_not_sent_is_told_and_sent_by_the_same_command(
    configure: Configure, tmp_path: Path, memory: Memory
) -> None:
    memory.failures = 10**6
    config = configure(out=str(tmp_path / "run"), track="memory")
    result, notes = run(config)
    assert result["steps"] == 6
    assert len(notes) <= 2
    assert (
        "not sent: metrics of steps 1 to 6, result, report.html, model.safetensors, model"
        in (notes[-1])
    )
    memory.failures = 0
    again, notes = run(config)
    assert (again, notes) == (result, [])
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5, 6]
    assert memory.opened[-1] == "run-1"


def test_a_server_that_hangs_is_not_waited_for(
    configure: Configure, tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.hangs = threading.Event()
    monkeypatch.setattr(session, "PATIENCE_S", 0.2)
    _, notes = run(configure(out=str(tmp_path / "run"), track="memory"))
    memory.hangs.set()
    assert "has not answered for 0.2 s; not sent: metrics of steps 1 to 6" in notes[-1]


def test_a_resume_goes_on_with_the_same_run(
    configure: Configure, tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fails").touch()
    own: dict[str, Any] = {"callback": (f"{HERE}:Stopping",), "checkpoint_every": 2, "lr": 0.02}
    out = str(tmp_path / "run")
    with pytest.raises(RunError, match="my own mistake"):
        run(configure(**own, out=out, track="memory"))
    assert memory.statuses == ["failed"]
    assert memory.files == ["config.json"]
    Path("fails").unlink()
    run(configure(**own, out=out, track="memory", resume=True, workers=2))
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5, 6]
    assert memory.opened == ["", "run-1"]
    assert memory.statuses == ["failed", "finished"]


def test_a_finished_run_is_sent_afterwards(
    configure: Configure, tmp_path: Path, memory: Memory
) -> None:
    out = str(tmp_path / "run")
    result, _ = run(configure(out=out))
    assert not (tmp_path / "run" / "tracking.json").exists()
    again, notes = run(configure(out=out, track="memory"))
    assert (again, notes) == (result, [])
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5, 6]
    record = read_json(tmp_path / "run" / "tracking.json") or {}
    assert record["memory"]["sent"] == {"train": 6, "test": 6}


def test_tracking_alters_neither_the_name_nor_the_bits(
    configure: Configure, tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, _ = run(configure())
    tracked, _ = run(configure(track="memory"))
    assert plain == tracked


def test_unknown_trackers_and_missing_packages_are_refused(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    (unknown,) = configure(track="tensorbord").problems()
    assert unknown.startswith("--track tensorbord: unknown tracker")
    assert "did you mean tensorboard?" in unknown
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (missing,) = configure(track="tensorboard").problems()
    assert missing.endswith("needs the package tensorboard: pip install 'sixfold[track]'")
    assert configure(track=["a,b", "a"]).tracking.names == ["a", "b"]
