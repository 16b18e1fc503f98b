"""A rank that computes other bits than the others is found out before the first step."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sixfold import data as datasets
from sixfold.core.errors import UserError
from sixfold.distributed.engines import open_engine
from sixfold.distributed.engines.forks import ForkServer
from sixfold.distributed.process_group import alone
from sixfold.distributed.session import PRELOAD
from sixfold.training.checkpoint import list_checkpoints, read_notes
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.same_bits import Bits, rank_difference, refuse_other_bits
from sixfold.training.step.arithmetic import arithmetic
from sixfold.training.strategies.registry import build_strategy
from sixfold.training.strategies.sync.strategy import Sync

Configure = Callable[..., TrainConfig]

needs_avx2 = pytest.mark.skipif(
    arithmetic()["aten"] == "DEFAULT", reason="this host has one instruction set only"
)


@pytest.fixture
def rank_1_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 of `local` computes as on a processor without AVX2."""
    fork = ForkServer.fork

    def forked(self: ForkServer, task: Any, *others: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            if task.args[1].rank == 1:
                patch.setenv("ATEN_CPU_CAPABILITY", "default")
            return fork(self, task, *others)

    monkeypatch.setattr(ForkServer, "fork", forked)


@pytest.mark.full
@needs_avx2
@pytest.mark.usefixtures("rank_1_is_older")
def test_a_rank_with_another_instruction_set_is_refused(
    configure: Configure, tmp_path: Path
) -> None:
    settings, notes = {"engine": "local", "workers": 2}, list[str]()
    with open_engine("local", preload=PRELOAD) as engine:
        with pytest.raises(UserError) as caught:
            train(configure(out=str(tmp_path / "run"), **settings), engine=engine)
        config = configure(out=str(tmp_path / "other"), deterministic=False, **settings)
        found = train(
            config, engine=engine, on_event=lambda event: notes.append(str(event.get("text")))
        )
    (line,) = caught.value.problems
    told = r"rank 1 \(\S+\) computes other bits than rank 0 \(\S+\): aten AVX\w+ and DEFAULT; "
    # Where there are no AVX-512 instructions, the kernel of weight gradients differs too.
    assert re.match(told + r"(weight gradients \S+ and \S+; )?give --cpu-isa avx2, ", line)
    assert len([note for note in notes if "computes other bits than rank 0" in note]) == 1
    assert [words["aten"] for words in found["arithmetic_by_rank"]][1] == "DEFAULT"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "resnet20", "data": "synthetic:80x3x16x16"},
        {"model": "resnet20", "data": "synthetic:80x3x16x16", "batch_norm": "sync"},
        {"precision": "float64", "micro_batch": "3"},
    ],
)
def test_the_canary_leaves_everything_as_it_was(
    configure: Configure, changes: dict[str, Any]
) -> None:
    config = configure(**changes)
    strategy = build_strategy(alone(), config, datasets.open_data(config.data))
    assert isinstance(strategy, Sync)
    state = strategy.step.state
    before = [state.parameters.clone(), state.buffers.clone(), state.counters()]
    generators = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    first = strategy.canary()
    after = [state.parameters, state.buffers, state.counters()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert random.getstate() == generators[0]
    assert str(np.random.get_state()) == generators[1]
    assert torch.equal(torch.get_rng_state(), generators[2])
    assert strategy.canary() == first
    state.parameters[0] += 1e-3  # it is of this network, not of anything fixed
    assert strategy.canary() != first


def test_it_is_the_same_on_every_rank_in_result_and_checkpoint(
    configure: Configure, tmp_path: Path
) -> None:
    one = train(configure(out=str(tmp_path / "one")))
    three = train(configure(out=str(tmp_path / "three"), workers=3))
    assert one["canary"] == three["canary"] != ""
    notes = read_notes(list_checkpoints(tmp_path / "three" / "checkpoints")[-1])
    assert json.loads(notes["progress"])["canary"] == one["canary"]


def test_ranks_of_a_divided_network_compute_the_same_part_of_it(
    configure: Configure, tmp_path: Path
) -> None:
    settings = {"strategy": "model_parallel", "workers": 2, "checkpoint_every": 3}
    settings["out"] = str(tmp_path)
    found = train(configure(**settings, grid="cout=2"))
    assert found["canary"].endswith(" cout=2")
    (tmp_path / "result.json").unlink()
    list_checkpoints(tmp_path / "checkpoints")[-1].unlink()
    config = configure(**settings, grid="rows=2", resume=True)
    assert train(config)["canary"].endswith(" rows=2")  # of another part, so nothing to compare


def test_a_resume_that_would_compute_other_bits_is_refused(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"out": str(tmp_path), "checkpoint_every": 3}
    train(configure(**settings))
    (tmp_path / "result.json").unlink()
    list_checkpoints(tmp_path / "checkpoints")[-1].unlink()
    monkeypatch.setattr(Sync, "canary", lambda _: "0123456789abcdef")
    with pytest.raises(UserError, match="may be faulty: go on with another one") as caught:
        train(configure(resume=True, **settings))
    assert len(caught.value.problems) == 1


ALIKE = Bits("feed", {"aten": "AVX2", "instruction_sets": "A avx2"}, "left")


def test_the_canary_outweighs_the_kind_of_processor() -> None:
    other = dataclasses.replace(ALIKE, arithmetic={"aten": "AVX2", "instruction_sets": "B avx2"})
    refuse_other_bits("it", ALIKE, other)
    with pytest.raises(UserError, match="other arithmetic: instruction sets A, here B"):
        refuse_other_bits("it", dataclasses.replace(ALIKE, canary=""), other)


def test_a_faulty_processor_is_named() -> None:
    with pytest.raises(UserError) as caught:
        rank_difference([ALIKE, ALIKE, Bits("bad", ALIKE.arithmetic, "right")], exact=True)
    assert str(caught.value) == (
        "rank 2 (right) computes other bits than rank 0 (left): torch, instruction sets and "
        "variables are the same, so one of the two processors may be faulty; leave one of them "
        "out, or give --deterministic false, which allows other bits"
    )
