"""Larger clusters: the formulas against the slow simulation, event by event."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.perf.event_simulation import Fleet, simulate_failures, simulate_steps
from tests.perf.plan.conftest import SHARD_S, STEP_S

from sixfold.core.errors import UserError
from sixfold.perf.plan.candidates import Candidate
from sixfold.perf.plan.cluster import Cluster, parse_cluster, with_failures
from sixfold.perf.plan.links import all_reduce_phases
from sixfold.perf.plan.model import Model
from sixfold.perf.plan.samples import Spread
from sixfold.perf.plan.whatif import _grown, at, quickest, simulate

SPREAD = Spread(quantiles=tuple(np.linspace(0.9, 1.2, 33) ** 2))


@pytest.mark.parametrize("workers", [4, 16, 64])
@pytest.mark.parametrize("bytes_per_s", [1.25e7, 1.25e9])
def test_formulas_hold_against_events(
    model_for: Callable[..., Model], workers: int, bytes_per_s: float
) -> None:
    model = model_for(1600)
    network = dataclasses.replace(model.profile.network, spread=SPREAD)
    profile = dataclasses.replace(model.profile, network=network, _sets={})
    model = dataclasses.replace(model, profile=profile)
    latency_s = 1e-4
    cluster = Cluster(workers=workers, per_host=1, bytes_per_s=bytes_per_s, latency_s=latency_s)
    predicted = _grown(model, cluster, workers).predict(Candidate(strategy="sync", workers=workers))
    shards = model.shards(1600)[0]
    fleet = Fleet(
        ranks=workers,
        per_host=1,
        own_s=STEP_S + SHARD_S * shards / workers,
        spread=SPREAD,
        phases=tuple(phase.each_bytes for phase in all_reduce_phases(4 * 10**6, shards, workers)),
        bytes_per_s=bytes_per_s,
        latency_s=latency_s,
    )
    steps = simulate_steps(fleet, 60 if workers < 64 else 12)
    assert predicted.mean_s == pytest.approx(float(np.mean(steps)), rel=0.1)


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2])
def test_failures_hold_against_events(rate: float) -> None:
    runs = [
        simulate_failures(5000.0, rate=rate, checkpoint_s=60.0, restart_s=20.0, seed=seed)
        for seed in range(400)
    ]
    expected = with_failures(
        5000.0, hosts=1, mtbf_hours=1 / rate / 3600, checkpoint_s=60.0, restart_s=20.0
    )
    assert expected == pytest.approx(float(np.mean(runs)), rel=0.03)


def test_thousands_of_workers_are_planned_within_a_second(model_for: Callable[..., Model]) -> None:
    model = model_for(8192)
    began = time.process_time()
    points = simulate(model, parse_cluster("workers=4096,per_host=8,link=10Gbps/20us"))
    assert time.process_time() - began < 1.0
    last = at(points, 4096)
    assert {point.prediction.candidate.strategy for point in last} == {
        "sync", "model_parallel", "local_sgd", "hogwild", "param_server"
    }  # fmt: skip
    sync = next(p for p in last if p.prediction.candidate.strategy == "sync")
    assert sync.prediction.idle_ranks == 4096 - 256
    assert sync.low_s < sync.mean_s < sync.high_s
    assert sync.run_low_s < sync.run_s < sync.run_high_s
    assert sync.failures > 0
    assert quickest(points, "sync").prediction.candidate.workers < 4096


def test_slow_links_make_merging_seldom_worth_it(model_for: Callable[..., Model]) -> None:
    model = model_for(8192)

    def best_strategy(link: str) -> str:
        points = simulate(model, parse_cluster(f"workers=64,per_host=1,link={link}"), counts=[64])
        ways = [p for p in points if p.prediction.candidate.strategy in ("sync", "local_sgd")]
        return min(ways, key=lambda p: p.mean_s).prediction.candidate.strategy

    assert best_strategy("10Mbps/1ms") == "local_sgd"


def test_hosts_share_their_link(model_for: Callable[..., Model]) -> None:
    model = model_for(1600)

    def exchange_s(per_host: int) -> float:
        cluster = parse_cluster(f"workers=64,per_host={per_host},link=100Mbps/20us")
        [point] = [
            p
            for p in simulate(model, cluster, counts=[64])
            if p.prediction.candidate.strategy == "sync"
        ]
        return point.prediction.exchange_s

    assert exchange_s(8) > 4 * exchange_s(1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "workers is missing"),
        ("workers=0", "a whole number"),
        ("workers=8,link=10", "bandwidth and latency"),
        ("workers=8,link=0Gbps/1us", "above 0"),
        ("workers=8,workers=9", "given twice"),
        ("workers=8,mtbf=never", "above 0"),
        ("size=8", "not known"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        parse_cluster(text)
    assert any(problem in line for line in error.value.problems)


def test_the_tail_goes_on_beyond_what_was_measured() -> None:
    found: Any = SPREAD.slowest(np.array([10, 100, 1000, 4096]))
    assert np.all(np.diff(found) > 0)
    assert np.all(np.isfinite(found))
