"""What the conductor decides, without servers or workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sixfold.core.run_directory import RankFiles, RunDirectory
from sixfold.training.config import OptimizerConfig, TrainConfig
from sixfold.training.progress import Progress
from sixfold.training.step.flat import FlatState
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.step.schedule import TrainingLength
from sixfold.training.strategies.param_server import coordinator as room
from sixfold.training.strategies.param_server.coordinator import Coordinator
from sixfold.training.strategies.param_server.server import LeaseName, Snapshot
from sixfold.training.strategies.param_server.whole import WholeState

Configure = Callable[..., TrainConfig]


@pytest.fixture
def conductor(configure: Configure, tmp_path: Path) -> Coordinator:
    """Of a run of two epochs of four steps, on two servers that are there."""
    directory = RunDirectory(tmp_path)
    directory.create()
    attempt = directory.claim()
    state = FlatState(torch.nn.Linear(20, 20))
    whole = WholeState(state, make_optimizer(OptimizerConfig(), state.parameters), 2)
    made = Coordinator(
        configure(evaluate_every=1.0),
        TrainingLength(images=8, batch_size=2, total_steps=8),
        RankFiles(directory.ticket(), attempt=attempt, rank=0, host="here"),
        whole,
        Progress(),
        whole.snapshots(),
        workers=2,
        on_event=lambda _: None,
        part="validation",
    )
    for server in (0, 1):
        made.server_joined(server, None, 10 + server, {}, 1)
    return made


def snapshots(conductor: Coordinator, done: int) -> list[Snapshot]:
    """What servers hold that have applied the first `done` steps."""
    found = conductor.whole.snapshots()
    for snapshot in found:
        for step in range(done):
            snapshot.ledger.applied[LeaseName(step // 4, step % 4)] = 1
    return found


def make_steps(conductor: Coordinator, worker: int, count: int) -> None:
    for _ in range(count):
        task = conductor.next_for(worker)
        assert task["kind"] == "lease"
        report = {
            "name": task["name"], "attempt": task["attempt"], "count": 1, "lives": [10, 11],
            "bytes": 7, "line": {"images": 2, "loss": 1.0}, "times": {},
        }  # fmt: skip
        conductor.report(worker, report)


def test_an_epochs_end_is_saved_and_evaluated_by_whoever_asks_next(conductor: Coordinator) -> None:
    make_steps(conductor, 0, 3)
    conductor.keep(lambda: pytest.fail("nothing is due"))
    make_steps(conductor, 0, 1)
    conductor.keep(lambda: snapshots(conductor, 4))
    task = conductor.next_for(1)
    assert (task["kind"], task["step"]) == ("evaluate", 4)
    assert conductor.next_for(0)["kind"] == "lease"
    conductor.evaluated(1, {"loss": 0.5, "accuracy": 0.75}, 0.75, 0.1)
    assert conductor.progress.best_step == 4
    assert conductor.progress.best_accuracy == 0.75


def test_an_evaluation_whose_worker_dies_or_hangs_is_made_by_another(
    conductor: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_steps(conductor, 0, 4)
    conductor.keep(lambda: snapshots(conductor, 4))
    assert conductor.next_for(0)["kind"] == "evaluate"
    conductor.worker_left(0, dead=True)
    assert conductor.next_for(1)["kind"] == "evaluate"
    monkeypatch.setattr(room, "EVALUATION_S", -1.0)
    assert conductor.next_for(0)["kind"] == "evaluate"
    monkeypatch.undo()
    conductor.evaluated(
        1, {"loss": 0.5, "accuracy": 0.5}, 0.5, 0.1
    )  # too late: it is no longer that worker's
    assert conductor.progress.best_step == -1
    conductor.evaluated(0, {"loss": 0.5, "accuracy": 0.75}, 0.75, 0.1)
    assert conductor.progress.best_accuracy == 0.75
    assert conductor.worker_losses == 1


def test_what_waits_for_its_evaluation_is_not_removed(conductor: Coordinator) -> None:
    make_steps(conductor, 0, 4)
    conductor.keep(lambda: snapshots(conductor, 4))
    task = conductor.next_for(1)
    for done in (5, 6, 7):
        conductor.save(lambda done=done: snapshots(conductor, done))  # type: ignore[misc]
    folder = conductor.files.path / "checkpoints"
    assert (folder / task["checkpoint"]).is_file()
    conductor.evaluated(1, {"loss": 0.5, "accuracy": 0.75}, 0.75, 0.1)
    conductor.save(lambda: snapshots(conductor, 8))
    # The best one stays; of the others the last two.
    kept = sorted(int(path.name[5:14]) for path in folder.iterdir())
    assert kept == [4, 7, 8]


def test_a_report_of_a_servers_former_life_does_not_count(conductor: Coordinator) -> None:
    task = conductor.next_for(0)
    conductor.server_left(1, 11)
    conductor.server_joined(1, None, 99, {}, 2)
    report: dict[str, Any] = {
        "name": task["name"], "attempt": task["attempt"], "count": 1, "lives": [10, 11], "bytes": 0
    }  # fmt: skip
    conductor.report(0, report)
    assert list(conductor.book.steps_done()) == []
    conductor.report(0, report | {"lives": [10, 99]})
    assert list(conductor.book.steps_done()) == [0]


def test_the_run_ends_only_when_the_last_checkpoint_holds_every_step(
    conductor: Coordinator,
) -> None:
    make_steps(conductor, 0, 8)
    conductor.keep(lambda: None)  # a server is just away
    assert not conductor.over
    conductor.keep(lambda: snapshots(conductor, 7))  # it has fallen back meanwhile
    assert not conductor.over
    conductor.keep(lambda: snapshots(conductor, 8))
    assert conductor.finished
    assert conductor.next_for(0) == {"kind": "done"}
    assert conductor.figures()["bytes_per_step"] == 7


def test_a_failure_elsewhere_sends_workers_home(conductor: Coordinator) -> None:
    conductor.fail(OSError("first"))
    conductor.fail(OSError("second"))
    assert str(conductor.failure) == "first"
    assert conductor.next_for(0)["kind"] == "done"
