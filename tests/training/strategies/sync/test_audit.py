"""Shards that two ranks compute: what is drawn, who is found wrong, and a rank that flips a bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from sixfold.core.errors import AuditError, UserError
from sixfold.distributed.engines import open_engine
from sixfold.distributed.engines.forks import ForkServer
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.logical_shards import owned_shards
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.echo import echo_world
from sixfold.distributed.session import PRELOAD
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.strategies.sync.audit import Audit, digest

Configure = Callable[..., TrainConfig]


class Plan:
    """Batches of which only the numbers of the shards count."""

    seed = 0

    def place(self, step: int) -> tuple[int, int, int]:
        return 0, 0, step

    def order(self, _: int) -> None:
        return None

    def shard(self, _step: int, index: int, _order: None) -> int:
        return index


class Rank:
    """A rank's step: a shard's payload is its number, or another in the calls that are wrong."""

    def __init__(self, wrong: set[int]) -> None:
        self.calls, self.wrong = itertools.count(), wrong

    def new_payload(self) -> Tensor:
        return torch.zeros(3)

    def shard_again(self, _: int, shard: int, out: Tensor) -> None:
        out[:] = shard
        if next(self.calls) in self.wrong:
            out[1] += 1e-6


def audit_of(comm: Communicator, share: float, rank: Any = None) -> Audit:
    stub: Any = rank or Rank(set())
    return Audit(comm, stub, cast("Any", Plan()), share)


@pytest.mark.parametrize(("size", "count", "share"), [(2, 4, 0.1), (3, 4, 0.25), (4, 4, 0.02)])
def test_every_shard_is_as_likely_to_be_drawn(size: int, count: int, share: float) -> None:
    audits = [audit_of(echo_world(rank, size)[0], share) for rank in range(size)]
    times = dict.fromkeys(range(count), 0)
    steps = 4000
    for step in range(steps):
        drawn = audits[0].drawn(step, count)
        assert all(audit.drawn(step, count) == drawn for audit in audits)
        for rank, shards in enumerate(drawn):
            assert set(shards) <= set(owned_shards(count, size, rank))
            for shard in shards:
                times[shard] += 1
    assert all(abs(found / steps - share) < 0.03 for found in times.values())


def test_all_are_drawn_if_all_are_asked_for() -> None:
    audit = audit_of(echo_world(0, 3)[0], 1.0)
    assert audit.drawn(5, 4) == [[0], [1], [2, 3]]
    assert audit.drawn(5, 1) == []  # nobody else has a shard


def audited(comm: Communicator, wrong: dict[int, set[int]]) -> int:
    rank = Rank(wrong.get(comm.rank, set()))
    audit = audit_of(comm, 1.0, rank)
    own = {}
    payload = rank.new_payload()
    for shard in owned_shards(4, comm.size, comm.rank):
        rank.shard_again(7, shard, payload)
        own[shard] = digest(payload)
    audit.compare(7, audit.drawn(7, 4), own)
    return audit.shards


ALWAYS = set(range(100))


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_ranks_that_agree_go_on(size: int) -> None:
    assert InlineEngine().run_ranks(partial(audited, wrong={}), size).results == [4] * size


@pytest.mark.parametrize(
    ("size", "wrong", "told"),
    [
        (
            3,
            {1: ALWAYS},
            r"shard 0 differs: \S+ \(rank 1\) has .*rank 2\) agrees with ",
        ),
        (
            3,
            {1: {1}},
            r"shard 0 differs: \S+ \(rank 1\) has .*rank 2\) agrees with ",
        ),
        (3, {2: {0}}, r"shard 2 differs: \S+ \(rank 2\) has computed it wrongly"),
        (
            2,
            {0: {1}},
            r"shard 1 differs: \S+ \(rank 0\) .*it is that of \S+ \(rank 1",
        ),
        (2, {0: {2}}, r"shard 2 differs: \S+ \(rank 0\) has computed it wrongly"),
        (2, {0: ALWAYS}, r"shard 0 differs between .*told which is wrong; with three workers"),
        (6, {3: {0}}, r"shard 3 differs: \S+ \(rank 3\) has computed it wrongly"),
    ],
)
def test_who_is_wrong(size: int, wrong: dict[int, set[int]], told: str) -> None:
    with pytest.raises(AuditError, match=r"audit of step 8: the gradient of " + told):
        InlineEngine().run_ranks(partial(audited, wrong=wrong), size)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "resnet20", "model_args": "depth=8", "batch_norm": "sync", "steps": 3},
        {"augment": "crop:2,flip", "micro_batch": "3", "workers": 3},
    ],
)
def test_the_bits_of_a_training_are_those_without(
    configure: Configure, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = {"workers": 2, "batch_size": 50, **changes}
    plain = train(configure(out=str(tmp_path / "plain"), **settings))
    found = train(configure(out=str(tmp_path / "audited"), audit=0.5, **settings))
    assert found["weights_sha256"] == plain["weights_sha256"]
    assert found["audited_shards"] > 0


def wrong_on_slot_1(life: int) -> Callable[[Audit, int, int], bytes]:
    """Shards that the first process of a slot computes to other bits, again and again."""
    again = Audit._again

    def computed(audit: Audit, number: int, shard: int) -> bytes:
        found = again(audit, number, shard)
        seat = cast("Any", audit._world.transport).identity
        return found[::-1] if (seat.slot, seat.life) == (1, life) and number > 1 else found

    return computed


@pytest.mark.parametrize(("workers", "restarts"), [(3, 0), (2, 1)])
def test_the_others_go_on_without_a_rank_that_was_wrong(
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    restarts: int,
) -> None:
    settings = {"engine": "inline", "steps": 4, "batch_size": 50}
    plain = train(configure(out=str(tmp_path / "plain"), workers=1, **settings))
    monkeypatch.setattr(Audit, "_again", wrong_on_slot_1(0))
    settings |= {"workers": workers, "audit": 1.0, "max_restarts": restarts}
    notes = list[str]()
    found = train(
        configure(out=str(tmp_path / "run"), on_audit_failure="exclude", **settings),
        on_event=lambda event: notes.append(event.get("text", "")),
    )
    assert found["weights_sha256"] == plain["weights_sha256"]
    # Its host, the only one here, gets no rank again, so restarts are not used.
    assert [view["ranks"] for view in found["views"]] == [workers, workers - 1]
    assert found["restarts"] == 0
    told = [note for note in notes if "(rank 1) has computed it wrongly" in note]
    assert len(told) == 1
    assert told[0].startswith("audit of step 3: the gradient of shard ")
    assert told[0].endswith("; the others go on without it")
    with pytest.raises(AuditError, match=r"\(rank 1\) has computed it wrongly"):
        train(configure(out=str(tmp_path / "stopped"), **settings))


def test_what_it_does_not_go_with(configure: Configure, tmp_path: Path) -> None:
    for changes, told in (
        ({"strategy": "local_sgd", "workers": 2}, "--audit 0.5: only for --strategy sync"),
        ({"deterministic": False, "workers": 2}, "--audit 0.5: not with --deterministic false"),
        ({"workers": 1}, "--audit 0.5: another rank computes again, give --workers 2 or more"),
        ({"audit": 0.0, "on_audit_failure": "exclude", "workers": 2}, "only with --audit"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            train(configure(out=str(tmp_path / "run"), **{"audit": 0.5, **changes}))
        assert len(caught.value.problems) == 1


FAULTY = '''
import os
import torch
from torch import nn

calls = 0


class Faulty(torch.autograd.Function):
    """The identity, whose gradient has a bit flipped on one rank from its sixth call on."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        global calls
        calls += 1
        grad = grad.clone()
        if os.environ.get("FAULTY_RANK") and calls > 5:
            grad.view(-1).view(torch.int32)[0] ^= 1 << 20
        return grad


class Layer(nn.Module):
    def forward(self, x):
        return Faulty.apply(x)


def network(shape, classes):
    size = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 16), Layer(), nn.Linear(16, classes))
'''


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a training whose first process of rank 1 flips a bit."""
    (tmp_path / "faulty_network.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fork = ForkServer.fork

    def forked(self: ForkServer, task: Any, *others: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            if (task.args[1].rank, task.args[1].generation) == (1, 0):
                patch.setenv("FAULTY_RANK", "1")
            return fork(self, task, *others)

    monkeypatch.setattr(ForkServer, "fork", forked)
    return {"model": "faulty_network:network", "engine": "local", "steps": 30}


def test_a_rank_that_flips_a_bit_is_named(
    configure: Configure, tmp_path: Path, faulty: dict[str, Any]
) -> None:
    settings = faulty | {"workers": 3, "checkpoint_every": 1}
    with open_engine("local", preload=PRELOAD) as engine:
        quiet = configure(out=str(tmp_path / "quiet"), **settings)
        assert train(quiet, engine=engine)["steps"] == 30  # nobody notices
        watched = configure(out=str(tmp_path / "watched"), audit=0.5, **settings)
        with pytest.raises(AuditError, match=r"\(rank 1\) has computed it wrongly"):
            train(watched, engine=engine)


@pytest.mark.full
@pytest.mark.parametrize("norm", ["shard", "sync"])
@pytest.mark.parametrize("workers", [2, 3])
def test_a_rank_that_flips_a_bit_is_excluded_and_where_there_are_two_the_launcher_decides(
    configure: Configure, tmp_path: Path, faulty: dict[str, Any], workers: int, norm: str
) -> None:
    settings = faulty | {"batch_norm": norm, "checkpoint_every": 100}
    calm = train(configure(out=str(tmp_path / "calm"), **settings | {"engine": "inline"}))
    settings |= {"workers": workers, "audit": 1.0, "on_audit_failure": "exclude"}
    notes = list[str]()
    run = tmp_path / "run"
    with open_engine("local", preload=PRELOAD) as engine:
        found = train(
            configure(out=str(run), **settings, max_restarts=1),
            engine=engine,
            on_event=lambda event: notes.append(event.get("text", "")),
        )
    assert found["weights_sha256"] == calm["weights_sha256"]
    assert found["restarts"] == 0
    who = "the launcher agrees" if workers == 2 else r"agrees"
    assert any("(rank 1) has computed it wrongly" in note and who in note for note in notes)
    assert not list(run.glob("audit-*"))
