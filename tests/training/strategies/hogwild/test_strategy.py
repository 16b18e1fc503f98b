"""Hogwild: whose batches, who shares memory, what is merged, and whether it learns."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from sixfold.core.errors import NonFiniteLossError, RankLostError
from sixfold.distributed.engines import Engine, open_engine
from sixfold.distributed.process_group import Communicator
from sixfold.training.config import TrainConfig
from sixfold.training.run import train, training_problems
from sixfold.training.step.schedule import TrainingLength
from sixfold.training.strategies.hogwild import strategy
from sixfold.training.strategies.hogwild.groups import find_groups, group_by_sight
from sixfold.training.strategies.hogwild.strategy import Rounds

Configure = Callable[..., TrainConfig]


@given(
    images=st.integers(1, 60),
    batch=st.integers(1, 10),
    total=st.integers(1, 80),
    ranks=st.integers(1, 7),
)
def test_ranks_make_every_step_of_serial_training_once_and_epochs_end_together(
    images: int, batch: int, total: int, ranks: int
) -> None:
    serial = TrainingLength(images=images, batch_size=min(batch, images), total_steps=total)
    rounds = Rounds(serial=serial, ranks=ranks)
    wide = rounds.budget()
    made = []
    for number in range(wide.total_steps):
        own = [rounds.batch(number, rank) for rank in range(ranks)]
        steps = [step for step in own if step is not None]
        assert own[0] is not None, "rank 0 has no step to log"
        assert {serial.place(step)[0] for step in steps} == {wide.place(number)[0]}
        made += steps
    assert made == list(range(total))


def test_one_worker_has_the_bits_of_serial_training(configure: Configure, tmp_path: Path) -> None:
    for name, case in {
        "sgd": {},
        "adam": {"optimizer": "adam", "lr": 0.001, "schedule": "cosine"},
        "norm": {"model": "resnet20", "model_args": "depth=8", "batch_size": 32, "steps": 4},
    }.items():
        serial = train(configure(out=str(tmp_path / name / "serial"), **case))
        found = train(configure(out=str(tmp_path / name / "run"), strategy="hogwild", **case))
        for figure in ("weights_sha256", "test_loss", "steps", "images"):
            assert found[figure] == serial[figure], (name, figure)


def test_ranks_that_take_turns_make_all_batches_and_resume(
    configure: Configure, tmp_path: Path
) -> None:
    settings = {
        "strategy": "hogwild", "workers": 3, "batch_size": 10, "steps": 40, "merge_every": 4,
        "checkpoint_every": 5, "validation": 0.2, "evaluate_every": 1.0,
    }  # fmt: skip
    whole = train(configure(out=str(tmp_path / "whole"), **settings))
    assert whole["steps"] == 40
    assert whole["images"] == 400
    assert whole["groups"] == [[0, 1, 2]]
    # An epoch of 16 batches takes three ranks 6 rounds; 8 more batches take 3.
    assert whole["rounds"] == 2 * 6 + 3
    out = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        train(configure(out=str(out), **settings), on_event=_interrupt_at(6))
    resumed = train(configure(out=str(out), resume=True, **settings))
    assert resumed["steps"] == whole["steps"]
    assert resumed["images"] == whole["images"]
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 16))


def _interrupt_at(step: int) -> Callable[[Mapping[str, Any]], None]:
    def on_event(event: Mapping[str, Any]) -> None:
        if event["kind"] == "evaluation" and event["step"] >= step:
            raise KeyboardInterrupt

    return on_event


def test_groups_that_share_nothing_are_merged_by_their_examples(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lonely ranks, two of which have work in the last round: local SGD, by hand."""
    monkeypatch.setattr(strategy, "find_groups", lambda comm: [[rank] for rank in range(comm.size)])
    notes: list[str] = []

    def on_event(event: Mapping[str, Any]) -> None:
        notes.append(str(event.get("text")))

    common = {
        "momentum": 0.0, "precision": "float64", "data": "synthetic:50x3x8x8", "batch_size": 10,
        "evaluate_every": 0.0,
    }  # fmt: skip
    config = configure(
        out=str(tmp_path / "run"), strategy="hogwild", workers=3, steps=5, merge_every=9, **common
    )
    result = train(config, on_event=on_event)
    assert result["groups"] == [[0], [1], [2]]
    assert (result["steps"], result["rounds"]) == (5, 2)
    assert any("3 of them are single workers, that is plain SGD" in note for note in notes)
    found = load_file(tmp_path / "run" / "model.safetensors")
    weighted = {name: np.zeros(tensor.shape) for name, tensor in found.items()}
    for rank, share in ((0, 20 / 50), (1, 20 / 50), (2, 10 / 50)):
        own = _alone(configure, tmp_path / f"alone-{rank}", rank, common)
        for name, tensor in own.items():
            weighted[name] += share * tensor
    for name, expected in weighted.items():
        np.testing.assert_allclose(found[name].numpy(), expected, atol=1e-12, err_msg=name)


def _alone(
    configure: Configure, out: Path, rank: int, common: dict[str, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """Weights after the batches of one of three ranks, by steps of serial training."""
    import torch

    from sixfold import data as datasets
    from sixfold import models
    from sixfold.data.run import resolve_data
    from sixfold.training.step.batches import plan_batches
    from sixfold.training.step.step import Step

    config = configure(out=str(out), steps=5, **common)
    with contextlib.closing(open_engine("inline")) as engine:
        resolved = resolve_data(config.data, engine, 1, lambda _: None)
    data = datasets.open_data(resolved)
    model = models.build(config.model, shape=data.shape, classes=len(data.classes), seed=0)
    step = Step(model.to(torch.float64), seed=0)
    plan = plan_batches(config, data, batch_norm=False)
    order = datasets.permutation(0, 0, 50)
    for number in [n for n in range(5) if n % 3 == rank]:
        total = step.new_payload()
        for index in range(plan.count(number)):
            payload = step.new_payload()
            step.shard_payload(number, plan.shard(number, index, order), payload)
            total += payload
        step.state.parameters.sub_(step.finish(total).gradient, alpha=config.optimizer.lr)
    return {name: t.detach().numpy() for name, t in step.model.state_dict().items()}


def test_ranks_of_one_machine_find_each_other(local_engine: Engine) -> None:
    group = local_engine.run_ranks(_groups, 3)
    assert group.results == [[[0, 1, 2]]] * 3


def _groups(comm: Communicator) -> list[list[int]]:
    return find_groups(comm)


@given(st.data())
def test_groups_are_a_partition_of_ranks_that_see_each_other(data: Any) -> None:
    size = data.draw(st.integers(1, 7))
    sees = [data.draw(st.sets(st.integers(0, size - 1))) | {rank} for rank in range(size)]
    groups = group_by_sight([sorted(seen) for seen in sees])
    assert sorted(rank for group in groups for rank in group) == list(range(size))
    for group in groups:
        assert all(b in sees[a] for a in group for b in group)


class _Killer:
    """Kills a rank when it hears of the first evaluation."""

    def __init__(self) -> None:
        self.pids: dict[int, int] = {}
        self.killed = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "rank":
            self.pids[event["rank"]] = event["pid"]
        elif event["kind"] == "evaluation" and not self.killed:
            self.killed = 1
            os.kill(self.pids[1], signal.SIGKILL)


@pytest.mark.full
def test_processes_learn_together_and_a_killed_rank_leaves_no_memory_behind(
    configure: Configure, local_engine: Engine, tmp_path: Path
) -> None:
    settings = {
        "strategy": "hogwild", "engine": "local", "workers": 2, "steps": 300, "lr": 0.005,
        "data": "synthetic:800x3x8x8", "evaluate_every": 2.0,
    }  # fmt: skip
    killer = _Killer()
    with pytest.raises(RankLostError, match="SIGKILL"):
        train(
            configure(out=str(tmp_path / "dead"), **settings), engine=local_engine, on_event=killer
        )
    # Nobody who could map it is left, and it has no name: see test_shared_memory.py.
    assert not any(Path(f"/proc/{pid}/maps").exists() for pid in killer.pids.values())
    config = configure(out=str(tmp_path / "run"), max_restarts=1, **settings)
    result = train(config, engine=local_engine, on_event=_Killer())
    assert result["restarts"] == 1
    assert result["groups"] == [[0, 1]]
    assert result["images"] == 300 * 40
    assert result["test_accuracy"] > 0.9


@pytest.mark.full
@pytest.mark.spark
def test_tasks_of_one_executor_share_memory(
    configure: Configure, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue("spark_local")
    config = configure(
        out=str(tmp_path / "run"), strategy="hogwild", engine="spark", workers=2, steps=40
    )
    result = train(config, engine=engine)
    assert result["groups"] == [[0, 1]]
    assert result["images"] == 40 * 40


def test_a_loss_that_is_no_number_ends_the_run(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="smaller --lr"):
        train(configure(out=str(tmp_path / "run"), strategy="hogwild", lr=1e30, workers=2))


def test_wrong_settings_are_told(configure: Configure) -> None:
    assert "--merge-every 0: must be at least 1" in training_problems(
        configure(strategy="hogwild", merge_every=0)
    )
    assert "--merge-every 5: only for --strategy hogwild" in training_problems(
        configure(merge_every=5)
    )
