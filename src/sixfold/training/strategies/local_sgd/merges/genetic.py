"""Genetic search over the workers' networks, whose genes are feature maps.

The workers are the first generation. Fitness is accuracy on the validation part. From one
generation to the next, with all draws from (key, generation, child):

    elite     the E fittest go on unchanged, so that the best never gets worse
    parents   two tournaments of two: of two individuals drawn, the fitter is a parent
    crossover each map, as a whole, from either parent, with equal probability
    mutation  with probability p a map is changed: w[m] += s rms(w[m]) N(0, 1)

After the last generation the fittest individual is the merged network. A gene is a map with its
bias and with what normalises it (`sixfold.training.strategies.local_sgd.merges.channels_of_layer`);
running statistics go with their map and are not mutated.

Miller and Goldberg, "Genetic algorithms, tournament selection, and the effects of noise", 1995,
for selection; uniform crossover after Syswerda, 1989, with maps in place of bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sixfold.core.random_keys import key
from sixfold.training.strategies.local_sgd.merges.best import best_of

Score = tuple[float, float]  # accuracy and loss on the validation part


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """How the search goes."""

    population: int  # individuals in each generation after the first
    generations: int  # how many generations follow the first; 0 is the rule `best`
    elite: int  # how many of the fittest go on unchanged, below `population`
    mutation_rate: float  # p
    mutation_scale: float  # s


@dataclass(frozen=True, kw_only=True)
class Genome:
    """Which element belongs to which gene."""

    maps: Tensor  # (P,) int64, the map of every element
    count: int  # M, the number of maps
    fixed: Tensor  # (P,) bool, elements that are inherited but never mutated


def crossover(mother: Tensor, father: Tensor, from_father: Tensor, maps: Tensor) -> Tensor:
    """A child (P,) with each map from one parent: the father where `from_father` (M,) says so.

    >>> chosen, maps = torch.tensor([True, False]), torch.tensor([0, 1, 1])
    >>> crossover(torch.zeros(3), torch.ones(3), chosen, maps)
    tensor([1., 0., 0.])
    """
    return torch.where(from_father[maps], father, mother)


def mutate(child: Tensor, changed: Tensor, noise: Tensor, genome: Genome, scale: float) -> Tensor:
    """The child with the maps `changed` (M,) moved by normal `noise` (P,), times s and size."""
    counted = (~genome.fixed).to(child.dtype)
    size = torch.bincount(genome.maps, weights=counted, minlength=genome.count)
    squares = torch.bincount(genome.maps, weights=child.square() * counted, minlength=genome.count)
    rms = (squares / size.clamp(min=1)).sqrt().to(child.dtype)
    strength = (scale * rms * changed)[genome.maps] * counted
    return child + strength * noise


def evolve(
    workers: Sequence[Tensor],
    evolution: Evolution,
    genome: Genome,
    fitness: Callable[[Sequence[Tensor]], list[Score]],
    seed: int,
) -> tuple[Tensor, list[float]]:
    """The fittest network that the search finds, (P,), and the best accuracy of every generation.

    `workers` (P,) each, float64, are the first generation; `fitness` gives accuracy and loss on the
    validation part, of several networks at once; the seed is from `sixfold.core.random_keys.key`.
    """
    people = list(workers)
    scores = fitness(people)
    history = [scores[best_of(scores)][0]]
    for generation in range(evolution.generations):
        order = fittest_first(scores)
        kept = order[: evolution.elite]
        children = [
            _child(people, order, evolution, genome, key(seed, generation, number))
            for number in range(evolution.population - len(kept))
        ]
        people = [people[index] for index in kept] + children
        scores = [scores[index] for index in kept] + fitness(children)
        history.append(scores[best_of(scores)][0])
    return people[best_of(scores)], history


def fittest_first(scores: Sequence[Score]) -> list[int]:
    """Numbers of the individuals by fitness, of equals the first first.

    >>> fittest_first([(0.1, 1.0), (0.3, 1.0), (0.3, 0.5)])
    [2, 1, 0]
    """
    left, order = list(range(len(scores))), []
    while left:
        order.append(left.pop(best_of([scores[index] for index in left])))
    return order


def _child(
    people: Sequence[Tensor], order: Sequence[int], evolution: Evolution, genome: Genome, seed: int
) -> Tensor:
    """A child of two parents, drawn from `seed` alone."""
    draw = torch.Generator().manual_seed(seed)
    places = torch.randint(len(people), (2, 2), generator=draw).min(dim=1).values
    mother, father = (people[order[int(place)]] for place in places)
    from_father = torch.rand(genome.count, generator=draw) < 0.5
    changed = torch.rand(genome.count, generator=draw) < evolution.mutation_rate
    child = crossover(mother, father, from_father, genome.maps)
    noise = torch.randn(len(child), generator=draw, dtype=torch.float64)
    return mutate(child, changed, noise, genome, evolution.mutation_scale)
