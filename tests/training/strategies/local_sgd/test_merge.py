"""A merge made slice by slice over ranks, beside the pure rules on whole vectors."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from tests.marks import quick
from torch import Tensor

from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.models import build
from sixfold.models.config import ModelConfig
from sixfold.training.config import LocalSgdConfig, OptimizerConfig
from sixfold.training.step.flat import FlatState
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.strategies.local_sgd.merge import WHOLE, Members, Merger
from sixfold.training.strategies.local_sgd.merges import align
from sixfold.training.strategies.local_sgd.merges.channels import find_channels
from sixfold.training.strategies.local_sgd.merges.channels_of_layer import feature_maps
from sixfold.training.strategies.local_sgd.merges.map_delta import (
    map_delta,
    relative_changes,
    winners,
)
from sixfold.training.strategies.local_sgd.merges.max_delta import max_delta
from sixfold.training.strategies.local_sgd.merges.mean import mean, mean_delta
from sixfold.training.strategies.local_sgd.merges.nesterov import nesterov
from sixfold.training.strategies.local_sgd.worker_state import WorkerState, WorkerStateAccess

MODEL = ModelConfig(model="resnet20", model_args="depth=8")
EXAMPLES = [30, 10, 20]
RANKS = [2, 0, 1]


def body_of() -> WorkerStateAccess:
    state = FlatState(build(MODEL, shape=(3, 8, 8), classes=4, seed=0))
    return WorkerStateAccess(state, make_optimizer(OptimizerConfig(), state.parameters))


def worker_body(body: WorkerStateAccess, rank: int) -> WorkerState:
    """What a worker may have come to: everything moved a little."""
    own, draw = body.read(), torch.Generator().manual_seed(rank + 1)
    used = feature_maps(body.state)
    moved = own.vector + 0.1 * torch.randn(len(own.vector), generator=draw)
    padding = torch.cat([used.of, used.of[: body.weights]]) == used.count - 1
    moved[padding] = 0
    return WorkerState(vector=moved, counters=own.counters + rank, updates=5 + rank)


def score(network: Tensor) -> tuple[float, float]:
    """Some function of the weights, in the place of an accuracy."""
    return round(float(network.double().sin().sum()), 6), float(network.abs().sum())


def merged(comm: Communicator, config: LocalSgdConfig) -> dict[str, Any]:
    body = body_of()
    base = body.read().vector[: body.network]
    merger = Merger(comm, body, config, 0, score)
    members = Members(ranks=RANKS, comm=comm.subgroup(RANKS), round=0, group=0)
    before = comm.traffic.bytes_sent
    found, facts = merger.merge(members, base, worker_body(body, comm.rank), EXAMPLES[comm.rank])
    return {
        "vector": found.vector.tolist(),
        "counters": found.counters.tolist(),
        "updates": found.updates,
        "facts": facts,
        "sent": comm.traffic.bytes_sent - before,
    }


@functools.cache
def run(rule: str, **more: Any) -> list[dict[str, Any]]:
    config = LocalSgdConfig(aggregation=rule, **more)
    return [
        dict(result)
        for result in InlineEngine().run_ranks(functools.partial(merged, config=config), 3).results
    ]


def expected(rule: str) -> Tensor:
    """The rule on whole vectors, in the order of the members."""
    body = body_of()
    base = torch.zeros(body.length, dtype=torch.float64)
    base[: body.network] = body.read().vector[: body.network].double()
    deltas = torch.stack([worker_body(body, rank).vector.double() for rank in RANKS]) - base
    examples = [EXAMPLES[rank] for rank in RANKS]
    weights, maps = body.weights, feature_maps(body.state)
    whole = mean(base, deltas, examples)
    if rule == "max_delta":
        whole[:weights] = max_delta(base, deltas)[:weights]
    elif rule == "nesterov":
        pull = mean_delta(deltas, examples)[:weights].float().double()
        whole[:weights] = nesterov(base[:weights], pull, 0 * pull, lr=0.7, momentum=0.9)[0]
    elif rule == "map_delta":
        changes = torch.stack([
            relative_changes(base[:weights], d[:weights], maps.of[:weights], maps.count)
            for d in deltas
        ])  # fmt: skip
        of = torch.cat([maps.of, maps.of[:weights]])
        whole = map_delta(base, deltas, winners(changes), of)
    elif rule == "best":
        scores = [score((base + d)[: body.network].float()) for d in deltas]
        whole = base + deltas[max(range(3), key=lambda k: scores[k][0])]
    return whole


@pytest.mark.parametrize(
    "rule", quick(["mean", "max_delta", "map_delta", "best", "nesterov"], "best")
)
def test_slices_give_what_whole_vectors_give_on_every_rank(rule: str) -> None:
    results = run(rule)
    vector = expected(rule).float().tolist()
    for result in results:
        assert result["vector"] == vector
        assert set(result["counters"]) <= {2}
        assert result["updates"] == 7
    assert results[0]["facts"]["examples"] == EXAMPLES
    assert 0.5 <= results[0]["facts"]["layers"][WHOLE]["agreement"] <= 1


def test_the_genetic_rule_is_no_worse_than_the_best_worker() -> None:
    results = run("genetic", population=6, generations=3)
    assert results[0]["vector"] == results[1]["vector"] == results[2]["vector"]
    body = body_of()
    found = score(torch.tensor(results[0]["vector"])[: body.network])[0]
    best = max(score(worker_body(body, rank).vector[: body.network])[0] for rank in range(3))
    history = results[0]["facts"]["generations"]
    assert history[0] == pytest.approx(best)
    assert found == pytest.approx(history[-1])
    assert found > best
    slots = results[0]["vector"][body.network :]
    assert slots == expected("mean").float().tolist()[body.network :]


@pytest.mark.parametrize("rule", quick(["mean", "map_delta", "nesterov", "genetic"], "map_delta"))
def test_a_merge_sends_what_its_page_says(rule: str) -> None:
    body = body_of()
    bytes_of_all = 4 * body.length
    formula = 2 * bytes_of_all * 2 / 3
    if rule == "genetic":
        formula += 2 * 4 * body.network
    for result in run(rule):
        facts = result["sent"] - formula  # plain data: statistics, a number a map
        assert -64 <= facts < 60_000, (facts, formula)


def disordered(comm: Communicator) -> dict[str, Any]:
    """Rank 1 has the same network as rank 0 with its maps in another order, and learns nothing."""
    body = body_of()
    start = body.read()
    generator = torch.Generator().manual_seed(3)
    slots = torch.randn(body.weights, generator=generator)
    whole = torch.cat([start.vector[: body.network], slots])
    axes = find_channels(body.state.model).free
    orders = [np.random.default_rng(7).permutation(axis.size) for axis in axes]
    if comm.rank == 1:
        body.write(WorkerState(vector=whole, counters=start.counters, updates=1))
        for vector in (body.state.parameters, body.optimizer.slots["velocity"]):
            views = dict(body.state.named_views(vector))
            if vector is body.state.parameters:
                views |= dict(body.state.named_buffers(body.state.buffers))
            for name, tensor in align.apply(dict(views), axes, orders).items():
                views[name].copy_(tensor.clone())
        whole = body.read().vector
    merger = Merger(comm, body, LocalSgdConfig(align=True), 0, score)
    members = Members(ranks=[0, 1], comm=comm, round=0, group=0)
    own = WorkerState(vector=whole, counters=start.counters, updates=1)
    found, facts = merger.merge(members, start.vector[: body.network], own, 10)
    original = torch.cat([start.vector[: body.network], slots])
    return {
        "changed": bool(comm.rank == 1 and not torch.equal(whole, original)),
        "error": float((found.vector - original).abs().max()),
        "moved": facts["moved"],
    }


def test_alignment_undoes_another_numbering_and_counts_it() -> None:
    results = InlineEngine().run_ranks(disordered, 2).results
    assert results[1]["changed"]
    for result in results:
        assert result["error"] == 0.0
        assert all(counts[0] == 0 for counts in result["moved"].values())
        assert all(counts[1] > 0 for counts in result["moved"].values())
