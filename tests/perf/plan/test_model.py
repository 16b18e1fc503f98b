"""The step model against sums made by hand, and against what the real collectives send."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.perf.plan.conftest import LATENCY_S, SHARD_S, STEP_S

from sixfold.distributed.collectives import tree_all_reduce
from sixfold.distributed.logical_shards import cover, owned_shards
from sixfold.distributed.process_group.echo import echo_world
from sixfold.perf.plan.candidates import Candidate, candidates, cases
from sixfold.perf.plan.config import PlanConfig, training_of
from sixfold.perf.plan.links import all_reduce_phases
from sixfold.perf.plan.model import Model
from sixfold.perf.plan.profile import Profile
from sixfold.perf.plan.ranking import best, explain
from sixfold.perf.plan.samples import Spread, spread_of
from sixfold.training.strategies.model_parallel.grid import Grid, Mesh
from sixfold.training.strategies.spec import BIT_FOR_BIT

Maker = Callable[..., Model]


def test_one_worker_computes_all_shards(model_for: Maker) -> None:
    found = model_for().predict(Candidate(strategy="sync", workers=1))
    assert found.batch_s == pytest.approx(STEP_S + 4 * SHARD_S)
    assert found.sent_bytes == 0
    assert found.limit == "cores"


def test_two_workers_share_the_shards_and_add_up(model_for: Maker) -> None:
    found = model_for().predict(Candidate(strategy="sync", workers=2))
    assert found.compute_s == pytest.approx(STEP_S + 2 * SHARD_S)
    # Two exchanges of half of 4 MB each: a latency once, 2 ms each; 4 MB added at 1e12 bytes/s.
    assert found.exchange_s == pytest.approx(LATENCY_S + 4e-3 + 4e-6, rel=1e-3)
    assert found.sent_bytes == 4e6


def test_workers_beyond_the_shards_are_idle_and_said_so(model_for: Maker) -> None:
    model = model_for()
    few = model.predict(Candidate(strategy="sync", workers=4))
    many = model.predict(Candidate(strategy="sync", workers=16))
    assert few.idle_ranks == 0
    assert many.idle_ranks == 12
    fitting = dataclasses.replace(many, fits=True)
    assert "no logical shard" in explain([fitting], model.work)[2]


def test_more_ranks_than_cores_take_turns(model_for: Maker) -> None:
    found = model_for().predict(Candidate(strategy="sync", workers=4))
    assert found.compute_s == pytest.approx(2 * (STEP_S + SHARD_S))


def test_a_group_pays_for_halos_by_shard_and_for_sums_by_step(model_for: Maker) -> None:
    grid = Grid(mesh=Mesh(rows=2))
    found = model_for().predict(Candidate(strategy="model_parallel", workers=2, grid=grid))
    assert found.compute_s == pytest.approx(5e-3)
    assert found.exchange_s == pytest.approx(4 * (LATENCY_S + 1e-6) + LATENCY_S + 2e-3)
    assert found.sent_bytes == 4 * 1000 + 2_000_000


def test_mirrors_take_a_second_part_a_message_and_an_update(model_for: Maker) -> None:
    grid = Grid(mesh=Mesh(rows=2))
    way = Candidate(strategy="model_parallel", workers=2, grid=grid)
    without, found = model_for().predict(way), model_for(mirrors=True).predict(way)
    part = 4 * 10**6
    assert found.memory_bytes - without.memory_bytes == 3 * part  # weights, momentum, sums
    assert found.sent_bytes - without.sent_bytes == part
    assert found.compute_s - without.compute_s == pytest.approx(1e-4)
    assert found.exchange_s - without.exchange_s == pytest.approx(LATENCY_S + 4e-3)
    tiles = dataclasses.replace(way, workers=4, grid=Grid(batch=2, mesh=Mesh(rows=2)))
    without, found = model_for().predict(tiles), model_for(mirrors=True).predict(tiles)
    assert found == without  # the other tile has the same part


def test_local_sgd_merges_seldom(model_for: Maker) -> None:
    way = Candidate(strategy="local_sgd", workers=2)
    often = model_for(200, local_steps=1).predict(way)
    seldom = model_for(200, local_steps=100).predict(way)
    assert often.sent_bytes == pytest.approx(100 * seldom.sent_bytes)
    assert often.batch_s > seldom.batch_s
    assert seldom.compute_s == pytest.approx(STEP_S + 4 * SHARD_S + 1e-5)


def test_asynchronous_ways_count_batches_not_steps(model_for: Maker) -> None:
    model = model_for()
    alone_s = STEP_S + 4 * SHARD_S
    hogwild = model.predict(Candidate(strategy="hogwild", workers=2))
    assert hogwild.batch_s == pytest.approx((alone_s + 2e-4) / 2)
    servers = model.predict(Candidate(strategy="param_server", workers=2))
    assert servers.batch_s == pytest.approx((alone_s - 1e-4 + 1e-3) / 2)


def test_what_does_not_fit_is_refused(model_for: Maker) -> None:
    model = model_for()
    found = model.predict(Candidate(strategy="sync", workers=16))
    assert not found.fits
    assert best([found]) is None
    assert "fits into memory" in explain([found], model.work)[0]


def test_the_choice_is_exact_unless_told_otherwise(model_for: Maker) -> None:
    model = model_for()
    ways = [
        Candidate(strategy="sync", workers=2),
        Candidate(strategy="hogwild", workers=2),
        Candidate(strategy="sync", workers=1),
    ]
    predictions = [model.predict(way) for way in ways]
    chosen = best(predictions)
    assert chosen is not None
    assert chosen.candidate.strategy == "sync"
    quickest = best(predictions, (BIT_FOR_BIT, "approximate"))
    assert quickest is not None
    assert quickest.batch_s <= chosen.batch_s
    assert len(explain(predictions, model.work)) == 3


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 7, 8, 12])
@pytest.mark.parametrize("shards", [1, 4, 8])
@pytest.mark.parametrize("length", [10, 100_003])
def test_traffic_is_what_the_collectives_send(ranks: int, shards: int, length: int) -> None:
    sent = []
    for rank in range(ranks):
        comm, loopback = echo_world(rank, ranks)
        nodes = cover(owned_shards(shards, ranks, rank))
        partials = [(node, np.ones(length, np.float32)) for node in nodes]
        tree_all_reduce(comm, partials, shards, out=np.empty(length, np.float32))
        sent.append([sum(exchange.sent) for exchange in loopback.noted])
    phases = all_reduce_phases(4 * length, shards, ranks)
    most = [max(row[k] for row in sent) for k in range(max(map(len, sent)))]
    assert len(most) == len(phases)
    for found, phase in zip(most, phases, strict=True):
        assert found == pytest.approx(phase.sent_bytes, rel=1e-3)


def test_every_way_is_tried_and_has_its_rehearsals() -> None:
    config = training_of(PlanConfig())
    fitting = [Mesh(rows=2), Mesh(cout=2), Mesh(rows=2, cout=2)]
    ways = candidates(config, 4, fitting)
    names = [(way.name, way.workers) for way in ways]
    assert ("model_parallel batch=2,rows=2", 4) in names
    assert ("model_parallel rows=2,cout=2", 4) in names
    assert {way.strategy for way in ways} == {
        "sync", "model_parallel", "local_sgd", "hogwild", "param_server"
    }  # fmt: skip
    wanted = cases(config, 4, fitting, batch_norm=False, concurrency=2)
    assert {case.mesh for case in wanted} == {"", "rows=2", "cout=2", "rows=2,cout=2"}
    assert any(case.merge for case in wanted)


def test_the_slowest_of_many_is_slower() -> None:
    spread = Spread(quantiles=tuple(np.linspace(0.9, 1.1, 33)))
    found: Any = spread.slowest(np.array([1, 2, 16, 1024]))
    assert found[0] == pytest.approx(1.0)
    assert np.all(np.diff(found) > 0)
    draws = np.random.default_rng(0).uniform(0.9, 1.1, (20_000, 16)).max(axis=1)
    assert found[2] == pytest.approx(np.median(draws), rel=2e-3)


def test_slow_moments_that_last_even_out_less() -> None:
    random = np.random.default_rng(0)
    alone = [list(1 + 0.1 * random.random(50)) for _ in range(20)]
    lasting = [list(np.repeat(1 + 0.1 * random.random(5), 10)) for _ in range(20)]
    assert spread_of(alone).evening > 0.4
    assert spread_of(lasting).evening < 0.15
    assert spread_of([[1.0] * 20]).evening == 0.5


def test_ranks_that_meet_often_wait_more_and_those_that_meet_rarely_less(
    model_for: Maker,
) -> None:
    def waiting(candidate: Candidate, evening: float) -> float:
        made = model_for()
        spread = Spread(quantiles=(0.9, 1.0, 1.1), evening=evening)
        network = dataclasses.replace(made.profile.network, spread=spread)
        profile = Profile(network=network)
        return dataclasses.replace(made, profile=profile).predict(candidate).waiting_s

    sync, rarely = Candidate(strategy="sync", workers=2), Candidate(strategy="local_sgd", workers=2)
    assert waiting(sync, 0.5) == waiting(sync, 0.0) > 0
    assert waiting(rarely, 0.5) < waiting(rarely, 0.25) < waiting(rarely, 0.0)
    divided = Candidate(strategy="model_parallel", workers=2, grid=Grid(mesh=Mesh(rows=2)))
    assert waiting(divided, 0.5) > waiting(divided, 0.25) > waiting(divided, 0.0)


def test_real_ranks_correct_what_was_rehearsed_with_echoes(model_for: Maker) -> None:
    def compute_s(candidate: Candidate, mesh: str, clock: float) -> float:
        made = model_for()
        points = tuple(
            dataclasses.replace(
                point,
                clock_s=clock * point.step_s,
                real=1.2 * (point.mesh == mesh and not point.merge),
            )
            for point in made.profile.network.points
        )
        network = dataclasses.replace(made.profile.network, points=points)
        profile = Profile(network=network)
        return dataclasses.replace(made, profile=profile).predict(candidate).compute_s

    sync = Candidate(strategy="sync", workers=2)
    divided = Candidate(strategy="model_parallel", workers=2, grid=Grid(mesh=Mesh(rows=2)))
    for way, mesh, other in ((sync, "", "rows=2"), (divided, "rows=2", "")):
        echoed = model_for().predict(way).compute_s
        assert compute_s(way, mesh, 1.0) == pytest.approx(1.2 * echoed)
        assert compute_s(way, other, 1.0) == pytest.approx(echoed)
        # Rehearsals took twice their processor time: the clock would tell of other programs.
        assert compute_s(way, mesh, 2.0) == pytest.approx(echoed)
