"""What the coordinator decides, without servers or workers."""

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
def coordinator(configure: Configure, tmp_path: Path) -> Coordinator:
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


def snapshots(coordinator: Coordinator, done: int) -> list[Snapshot]:
    """What servers hold that have applied the first `done` steps."""
    found = coordinator.whole.snapshots()
    for snapshot in found:
        for step in range(done):
            snapshot.ledger.applied[LeaseName(step // 4, step % 4)] = 1
    return found


def make_steps(coordinator: Coordinator, worker: int, count: int) -> None:
    for _ in range(count):
        task = coordinator.next_for(worker)
        assert task["kind"] == "lease"
        report = {
            "name": task["name"], "attempt": task["attempt"], "count": 1, "lives": [10, 11],
            "bytes": 7, "line": {"images": 2, "loss": 1.0}, "times": {},
        }  # fmt: skip
        coordinator.report(worker, report)


def test_an_epochs_end_is_saved_and_evaluated_by_whoever_asks_next(
    coordinator: Coordinator,
) -> None:
    make_steps(coordinator, 0, 3)
    coordinator.keep(lambda: pytest.fail("nothing is due"))
    make_steps(coordinator, 0, 1)
    coordinator.keep(lambda: snapshots(coordinator, 4))
    task = coordinator.next_for(1)
    assert (task["kind"], task["step"]) == ("evaluate", 4)
    assert coordinator.next_for(0)["kind"] == "lease"
    coordinator.evaluated(1, {"loss": 0.5, "accuracy": 0.75}, 0.75, 0.1)
    assert coordinator.progress.best_step == 4
    assert coordinator.progress.best_accuracy == 0.75


def test_an_evaluation_whose_worker_dies_or_hangs_is_made_by_another(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_steps(coordinator, 0, 4)
    coordinator.keep(lambda: snapshots(coordinator, 4))
    assert coordinator.next_for(0)["kind"] == "evaluate"
    coordinator.worker_left(0, dead=True)
    assert coordinator.next_for(1)["kind"] == "evaluate"
    monkeypatch.setattr(room, "EVALUATION_S", -1.0)
    assert coordinator.next_for(0)["kind"] == "evaluate"
    monkeypatch.undo()
    coordinator.evaluated(
        1, {"loss": 0.5, "accuracy": 0.5}, 0.5, 0.1
    )  # too late: it is no longer that worker's
    assert coordinator.progress.best_step == -1
    coordinator.evaluated(0, {"loss": 0.5, "accuracy": 0.75}, 0.75, 0.1)
    assert coordinator.progress.best_accuracy == 0.75
    assert coordinator.worker_losses == 1


def test_what_waits_for_its_evaluation_is_not_removed(coordinator: Coordinator) -> None:
    make_steps(coordinator, 0, 4)
    coordinator.keep(lambda: snapshots(coordinator, 4))
    task = coordinator.next_for(1)
    for done in (5, 6, 7):
        coordinator.save(lambda done=done: snapshots(coordinator, done))  # type: ignore[misc]
    folder = coordinator.files.path / "checkpoints"
    assert (folder / task["checkpoint"]).is_file()
    coordinator.evaluated(1, {"loss": 0.5, "accuracy": 0.75}, 0.75, 0.1)
    coordinator.save(lambda: snapshots(coordinator, 8))
    # The best one stays; of the others the last two.
    kept = sorted(int(path.name[5:14]) for path in folder.iterdir())
    assert kept == [4, 7, 8]


def test_a_report_of_a_servers_former_life_does_not_count(coordinator: Coordinator) -> None:
    task = coordinator.next_for(0)
    coordinator.server_left(1, 11)
    coordinator.server_joined(1, None, 99, {}, 2)
    report: dict[str, Any] = {
        "name": task["name"], "attempt": task["attempt"], "count": 1, "lives": [10, 11], "bytes": 0
    }  # fmt: skip
    coordinator.report(0, report)
    assert list(coordinator.book.steps_done()) == []
    coordinator.report(0, report | {"lives": [10, 99]})
    assert list(coordinator.book.steps_done()) == [0]


def test_the_run_ends_only_when_the_last_checkpoint_holds_every_step(
    coordinator: Coordinator,
) -> None:
    make_steps(coordinator, 0, 8)
    coordinator.keep(lambda: None)  # a server is just away
    assert not coordinator.over
    coordinator.keep(lambda: snapshots(coordinator, 7))  # it has fallen back meanwhile
    assert not coordinator.over
    coordinator.keep(lambda: snapshots(coordinator, 8))
    assert coordinator.finished
    assert coordinator.next_for(0) == {"kind": "done"}
    assert coordinator.figures()["bytes_per_step"] == 7


def test_a_failure_elsewhere_sends_workers_home(coordinator: Coordinator) -> None:
    coordinator.fail(OSError("first"))
    coordinator.fail(OSError("second"))
    assert str(coordinator.failure) == "first"
    assert coordinator.next_for(0)["kind"] == "done"
