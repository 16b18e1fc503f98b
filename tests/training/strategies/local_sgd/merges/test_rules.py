"""Merge rules beside slow references that follow their formulas weight by weight."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sixfold.training.strategies.local_sgd.merges.best import best_of
from sixfold.training.strategies.local_sgd.merges.genetic import (
    Evolution,
    Genome,
    Score,
    crossover,
    evolve,
    fittest_first,
    mutate,
)
from sixfold.training.strategies.local_sgd.merges.map_delta import (
    map_delta,
    relative_changes,
    winners,
)
from sixfold.training.strategies.local_sgd.merges.max_delta import max_delta
from sixfold.training.strategies.local_sgd.merges.mean import mean, mean_delta
from sixfold.training.strategies.local_sgd.merges.nesterov import nesterov

Case = tuple[Tensor, Tensor, list[int], Tensor]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A base (P,), deltas (n, P), examples (n,), and the map of each element (P,)."""
    workers, length = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    values = st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -3.0, 0.1])
    numbers = st.lists(values, min_size=length, max_size=length)
    base = torch.tensor(draw(numbers), dtype=torch.float64)
    deltas = torch.tensor([draw(numbers) for _ in range(workers)], dtype=torch.float64)
    examples = draw(st.lists(st.integers(0, 9), min_size=workers, max_size=workers))
    examples[draw(st.integers(0, workers - 1))] += 1
    maps = draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
    return base, deltas, examples, torch.tensor(maps)


def slow_mean(base: Tensor, deltas: Tensor, examples: Sequence[int]) -> list[float]:
    return [
        float(base[i]) + sum(m * float(d[i]) for d, m in zip(deltas, examples, strict=True))
        / sum(examples)
        for i in range(len(base))
    ]  # fmt: skip


def slow_max_delta(base: Tensor, deltas: Tensor) -> list[float]:
    merged = []
    for i in range(len(base)):
        chosen = 0.0
        for delta in deltas:
            if abs(float(delta[i])) > abs(chosen):
                chosen = float(delta[i])
        merged.append(float(base[i]) + chosen)
    return merged


def slow_map_delta(base: Tensor, deltas: Tensor, maps: Tensor) -> list[float]:
    merged = base.tolist()
    for number in set(maps.tolist()):
        places = [i for i in range(len(base)) if int(maps[i]) == number]
        best, chosen = -1.0, deltas[0]
        for delta in deltas:
            moved = math.sqrt(sum(float(delta[i]) ** 2 for i in places))
            before = math.sqrt(sum(float(base[i]) ** 2 for i in places))
            change = moved / before if before else (math.inf if moved else 0.0)
            if change > best:
                best, chosen = change, delta
        for i in places:
            merged[i] += float(chosen[i])
    return merged


@given(cases())
def test_fast_rules_equal_their_formulas(case: Case) -> None:
    base, deltas, examples, maps = case
    assert mean(base, deltas, examples).tolist() == pytest.approx(slow_mean(base, deltas, examples))
    assert max_delta(base, deltas).tolist() == slow_max_delta(base, deltas)
    changes = torch.stack([relative_changes(base, delta, maps, 5) for delta in deltas])
    merged = map_delta(base, deltas, winners(changes), maps)
    assert merged.tolist() == slow_map_delta(base, deltas, maps)


@given(cases())
def test_workers_that_agree_are_taken_at_their_word(case: Case) -> None:
    base, deltas, examples, maps = case
    same = deltas[:1].expand(len(deltas), -1)
    moved = base + deltas[0]
    assert torch.allclose(mean(base, same, examples), moved, rtol=1e-14, atol=1e-15)
    assert torch.equal(max_delta(base, same), moved)
    changes = torch.stack([relative_changes(base, delta, maps, 4) for delta in same])
    assert torch.equal(map_delta(base, same, winners(changes), maps), moved)


def test_a_mean_over_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        mean_delta(torch.ones(2, 3), [0, 0])


def test_the_best_is_first_the_most_accurate_then_of_least_loss_then_the_first() -> None:
    assert best_of([(0.1, 0.0), (0.9, 5.0)]) == 1
    assert best_of([(0.9, 2.0), (0.9, 1.0), (0.9, 1.0)]) == 1
    assert best_of([(0.9, math.nan), (0.9, 9.0)]) == 1
    assert fittest_first([(0.9, math.nan), (0.9, 9.0), (1.0, 9.0)]) == [2, 1, 0]


@given(st.floats(0.1, 1.5), st.floats(0.0, 0.95), st.integers(1, 4))
def test_nesterov_is_torchs(lr: float, momentum: float, rounds: int) -> None:
    torch.manual_seed(0)
    deltas = torch.randn(rounds, 6, dtype=torch.float64)
    start = torch.randn(6, dtype=torch.float64)
    weights, velocity = start.clone(), torch.zeros(6, dtype=torch.float64)
    theirs = torch.nn.Parameter(start.clone())
    outer = torch.optim.SGD([theirs], lr=lr, momentum=momentum, nesterov=momentum > 0)
    for delta in deltas:
        weights, velocity = nesterov(weights, delta, velocity, lr=lr, momentum=momentum)
        theirs.grad = -delta
        outer.step()
    assert torch.allclose(weights, theirs.detach(), rtol=1e-12, atol=1e-13)


def test_an_outer_step_of_one_without_momentum_is_the_mean() -> None:
    base, deltas = torch.randn(5).double(), torch.randn(3, 5).double()
    pulled, _ = nesterov(base, mean_delta(deltas, [1, 2, 3]), 0 * base, lr=1.0, momentum=0.0)
    assert torch.allclose(pulled, mean(base, deltas, [1, 2, 3]), rtol=1e-14, atol=1e-15)


MAPS = torch.tensor([0, 0, 1, 1, 1, 2])
GENOME = Genome(maps=MAPS, count=3, fixed=torch.tensor([False] * 5 + [True]))


def test_a_child_has_each_map_whole_from_one_parent() -> None:
    mother, father = torch.zeros(6), torch.ones(6)
    child = crossover(mother, father, torch.tensor([True, False, True]), MAPS)
    assert child.tolist() == [1, 1, 0, 0, 0, 1]


def test_mutation_is_in_proportion_to_the_map_and_spares_statistics() -> None:
    child = torch.tensor([3.0, 4.0, 1.0, 1.0, 1.0, 7.0], dtype=torch.float64)
    noise = torch.ones(6, dtype=torch.float64)
    changed = torch.tensor([True, False, True])
    mutated = mutate(child, changed, noise, GENOME, scale=0.1) - child
    rms = math.sqrt((9 + 16) / 2)
    assert mutated.tolist() == pytest.approx([0.1 * rms] * 2 + [0.0] * 4)


def test_evolution_finds_what_no_worker_had() -> None:
    target = torch.tensor([2.0, 2.0, 2.0, 2.0, 2.0, 3.0], dtype=torch.float64)
    # Each worker has failed to learn one map; crossover can put the others together.
    workers = [target * MAPS.ne(number) for number in (0, 2)]
    evolution = Evolution(
        population=8, generations=4, elite=2, mutation_rate=0.0, mutation_scale=0.0
    )

    def fitness(networks: Sequence[Tensor]) -> list[Score]:
        return [(1 / (1 + float((w - target).norm())), 0.0) for w in networks]

    found, history = evolve(workers, evolution, GENOME, fitness, seed=1)
    assert torch.equal(found, target)
    assert history == sorted(history)
    assert len(history) == 5
    again, _ = evolve(workers, evolution, GENOME, fitness, seed=1)
    assert torch.equal(found, again)


def test_without_generations_evolution_is_the_best_worker() -> None:
    workers = [torch.full((6,), float(v), dtype=torch.float64) for v in (1, 5, 3)]
    evolution = Evolution(
        population=4, generations=0, elite=1, mutation_rate=0.5, mutation_scale=0.5
    )

    def fitness(networks: Sequence[Tensor]) -> list[Score]:
        return [(float(w[0]), 0.0) for w in networks]

    found, history = evolve(workers, evolution, GENOME, fitness, seed=0)
    assert torch.equal(found, workers[1])
    assert history == [5.0]
