"""One merge: what the members of a group exchange, and how a rule is applied to it.

Every rank merges one slice of the vector for its whole group and then gives it to all, so a merge
costs what one all-reduce does, and holds n slices instead of n networks (`genetic` alone needs
whole networks). Rules work element by element, once the few facts are known that concern whole
maps or whole networks; so where slices are cut cannot alter a bit.

State besides the weights: float buffers and the optimizer's state vectors come from the worker
that the weights come from, where a rule takes them from one (`map_delta`, `best`); with all other
rules they are the mean by examples, except that `genetic` takes buffers with their map. Integer
buffers and the optimizer's count of updates are the largest of the members'.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.core.random_keys import key
from sixfold.distributed.collectives import all_gather, all_gather_data
from sixfold.distributed.process_group import Communicator
from sixfold.training.config import LocalSgdConfig
from sixfold.training.strategies.local_sgd.groups import cuts, gather_slices, scatter_slices
from sixfold.training.strategies.local_sgd.merges import align
from sixfold.training.strategies.local_sgd.merges.best import best_of
from sixfold.training.strategies.local_sgd.merges.channels import Channels, find_channels
from sixfold.training.strategies.local_sgd.merges.channels_of_layer import (
    FeatureMaps,
    feature_maps,
    named_places,
)
from sixfold.training.strategies.local_sgd.merges.genetic import Evolution, Genome, Score, evolve
from sixfold.training.strategies.local_sgd.merges.map_delta import (
    map_delta,
    relative_changes,
    winners,
)
from sixfold.training.strategies.local_sgd.merges.max_delta import max_delta
from sixfold.training.strategies.local_sgd.merges.mean import mean, mean_delta
from sixfold.training.strategies.local_sgd.merges.nesterov import nesterov
from sixfold.training.strategies.local_sgd.merges.statistics import agreement, movement
from sixfold.training.strategies.local_sgd.worker_state import WorkerState, WorkerStateAccess

WHOLE = "all weights"  # the name under which statistics of all layers together are told
Facts = dict[str, Any]  # plain data: what is told of a merge


@dataclass(frozen=True, kw_only=True)
class Members:
    """Who merges."""

    ranks: list[int]  # of the group, in the process group
    comm: Communicator  # in which only they are, in that order
    round: int  # number of the merge, from 0
    group: int  # number of the group


class Merger:
    """Merges the training of a group's workers, on one rank; all ranks at once, each in its group.

    `score` gives accuracy and loss of a network (P + Q,) on the validation part. `velocity` (P,)
    float64 is the outer optimizer's, empty without one; `channels` are maps that may be numbered
    anew, none without `--align`.
    """

    def __init__(
        self,
        comm: Communicator,
        body: WorkerStateAccess,
        config: LocalSgdConfig,
        seed: int,
        score: Callable[[Tensor], Score],
    ) -> None:
        self.comm, self.body, self.config, self.seed = comm, body, config, seed
        self._score = score
        outer = body.weights if config.aggregation == "nesterov" else 0
        self.velocity = torch.zeros(outer, dtype=torch.float64)
        self.channels = find_channels(body.state.model) if config.align else Channels((), {})
        self._places = named_places(body.state)

    @functools.cached_property
    def _maps(self) -> FeatureMaps:
        """The network's maps; found when a rule first asks, since the network is traced for it."""
        return feature_maps(self.body.state)

    @functools.cached_property
    def _map_of(self) -> Tensor:
        """(T,) the map of every element of the whole vector."""
        body, of = self.body, self._maps.of
        slots = (body.length - body.network) // body.weights
        return torch.cat([of, *[of[: body.weights]] * slots])

    def merge(
        self, members: Members, base: Tensor, own: WorkerState, examples: int
    ) -> tuple[WorkerState, Facts]:
        """What every member goes on from, and what is reported of the merge, on every rank.

        The group's deltas are measured from `base` (P + Q,); `examples` is the number of images
        that this rank has learned from in the round.
        """
        vector, moved = self._aligned(base, own.vector)
        delta = vector[: self.body.network].double() - base.double()
        told = {
            "examples": examples,
            "counters": own.counters.tolist(),
            "updates": own.updates,
            "moved": moved,
            "layers": self.movements(base, delta),
        }
        if self.config.aggregation == "best":
            told["score"] = self._score(vector[: self.body.network])
        everyone = all_gather_data(self.comm, told)
        group = [everyone[rank] for rank in members.ranks]
        winner = self._winners(members, base, delta, group)
        rows = scatter_slices(members.comm, vector)
        piece, agreed = self._merge_slice(members, base, rows, group, winner)
        merged = gather_slices(members.comm, piece.to(vector.dtype), len(vector))
        facts = self._facts(everyone, agreed, self._taken(members, winner))
        if self.config.aggregation == "nesterov":
            self._outer_step(base, merged)
        elif self.config.aggregation == "genetic":
            facts["generations"] = self._evolve(members, vector, merged)
        counters = np.array([fact["counters"] for fact in group], np.int64).max(axis=0, initial=0)
        body = WorkerState(
            vector=merged,
            counters=torch.from_numpy(counters),
            updates=max(fact["updates"] for fact in group),
        )
        return body, facts

    def movements(self, base: Tensor, delta: Tensor) -> dict[str, list[float | None]]:
        """Mean |delta| and 100 ||delta|| / ||base|| of every parameter, and of all together."""
        weights = self.body.weights
        layers = [(WHOLE, base[:weights], delta[:weights])]
        for (name, before), (_, change) in zip(
            self.body.named(base), self.body.named(delta), strict=True
        ):
            layers.append((name, before, change))
        found: dict[str, list[float | None]] = {}
        for name, before, change in layers:
            told = movement(before.double(), change)
            # JSON has no infinity: what began at zero has no change in percent.
            percent = told.percent if math.isfinite(told.percent) else None
            found[name] = [told.absolute, percent]
        return found

    def _aligned(self, base: Tensor, vector: Tensor) -> tuple[Tensor, dict[str, int]]:
        """This rank's vector with its maps in the base's order, and how many had moved."""
        axes = self.channels.free
        if not axes:
            return vector, {}
        orders = align.align(dict(self.body.named(base)), dict(self.body.named(vector)), axes)
        moved = align.moved(axes, orders)
        if not any(moved.values()):
            return vector, moved
        state, weights, network = self.body.state, self.body.weights, self.body.network
        source = torch.arange(len(vector))
        places = dict(state.named_views(source[:weights]))
        places |= dict(state.named_buffers(source[weights:network]))
        arranged = align.apply({name: t.clone() for name, t in places.items()}, axes, orders)
        for name, place in places.items():
            place.copy_(arranged[name])
        for start in range(network, len(vector), weights):
            source[start : start + weights] = source[:weights] + start
        return vector[source], moved

    def _winners(
        self, members: Members, base: Tensor, delta: Tensor, group: Sequence[Facts]
    ) -> Tensor | None:
        """For rules that take maps from one member each: (M,) its number in the group."""
        if self.config.aggregation not in ("best", "map_delta"):
            return None
        maps = self._maps
        if self.config.aggregation == "best":
            index = best_of([tuple(fact["score"]) for fact in group])
            return torch.full((maps.count,), index, dtype=torch.int64)
        # Only trainable weights count as change; running statistics follow their map.
        weights = self.body.weights
        own = relative_changes(
            base[:weights].double(), delta[:weights], maps.of[:weights], maps.count
        )
        changes = all_gather(self.comm, own.numpy())
        return winners(torch.stack([torch.from_numpy(changes[rank]) for rank in members.ranks]))

    def _merge_slice(
        self,
        members: Members,
        base: Tensor,
        rows: Tensor,
        group: Sequence[Facts],
        winner: Tensor | None,
    ) -> tuple[Tensor, dict[str, tuple[float, int]]]:
        """This rank's slice of the merged vector, float64, and how far workers agree in it."""
        places, me = cuts(self.body.length, members.comm.size), members.comm.rank
        low, high = places[me], places[me + 1]
        known = base[low : min(high, self.body.network)].double()
        before = torch.cat([known, torch.zeros(high - low - len(known), dtype=torch.float64)])
        deltas = rows.double() - before
        examples = [fact["examples"] for fact in group]
        if not any(examples):
            examples = [1] * len(group)
        inside = slice(0, max(min(high, self.body.weights) - low, 0))
        if winner is not None:
            piece = map_delta(before, deltas, winner, self._map_of[low:high])
        else:
            piece = mean(before, deltas, examples)
        if self.config.aggregation == "max_delta":
            piece[inside] = max_delta(before[inside], deltas[:, inside])
        elif self.config.aggregation == "nesterov":
            piece[inside] = mean_delta(deltas[:, inside], examples)
        return piece, self._agreements(deltas[:, inside], low)

    def _agreements(self, deltas: Tensor, low: int) -> dict[str, tuple[float, int]]:
        """`agreement` of every parameter's part in the slice that begins at `low`."""
        found = {}
        if len(deltas) > 1:
            for name, place in self._places.items():
                start = int(place.flatten()[0]) - low
                part = deltas[:, max(start, 0) : max(start + place.numel(), 0)]
                found[name] = agreement(part)
        return found

    def _outer_step(self, base: Tensor, merged: Tensor) -> None:
        """Replace the mean delta in `merged` by the weights that the outer optimizer makes."""
        weights = self.body.weights
        moved, self.velocity = nesterov(
            base[:weights].double(),
            merged[:weights].double(),
            self.velocity,
            lr=self.config.outer_lr,
            momentum=self.config.outer_momentum,
        )
        merged[:weights] = moved

    def _evolve(self, members: Members, vector: Tensor, merged: Tensor) -> list[float]:
        """Replace the network in `merged` by the fittest; the best accuracy of generations."""
        network, config = self.body.network, self.config
        workers = all_gather(members.comm, vector[:network].numpy())
        fixed = torch.arange(network) >= self.body.weights
        found, history = evolve(
            [torch.from_numpy(worker).double() for worker in workers],
            Evolution(
                population=config.population,
                generations=config.generations,
                elite=config.elite,
                mutation_rate=config.mutation_rate,
                mutation_scale=config.mutation_scale,
            ),
            Genome(maps=self._maps.of, count=self._maps.count, fixed=fixed),
            lambda networks: self._fitness(members, networks),
            key(self.seed, "genetic", members.round, members.group),
        )
        merged[:network] = found
        return history

    def _fitness(self, members: Members, networks: Sequence[Tensor]) -> list[Score]:
        """Scores of several networks, shared out over the group."""
        count, me = members.comm.size, members.comm.rank
        own = []
        for network in networks[me::count]:
            own.append(self._score(network))
            self.comm.keep_alive()
        everyone = all_gather_data(self.comm, own)
        scores: list[Score] = [(0.0, 0.0)] * len(networks)
        for place, rank in enumerate(members.ranks):
            scores[place::count] = [(float(a), float(b)) for a, b in everyone[rank]]
        return scores

    def _taken(self, members: Members, winner: Tensor | None) -> dict[str, int]:
        """Layer -> how many of its maps were taken from this rank."""
        if winner is None:
            return {}
        own = winner == members.comm.rank
        return {
            layer: int(own[maps.start : maps.stop].sum())
            for layer, maps in self._maps.layers.items()
        }

    def _facts(
        self, everyone: Sequence[Facts], agreed: dict[str, tuple[float, int]], taken: dict[str, int]
    ) -> Facts:
        """What is told of the merge; lists have an entry a worker, by rank."""
        pieces = all_gather_data(self.comm, {"agreed": agreed, "taken": taken})
        layers: dict[str, Facts] = {}
        for name in everyone[0]["layers"]:
            layers[name] = {
                "absolute": [fact["layers"][name][0] for fact in everyone],
                "percent": [fact["layers"][name][1] for fact in everyone],
                "agreement": _share([piece["agreed"].get(name) for piece in pieces]),
            }
        sums = [_sum(piece["agreed"].values()) for piece in pieces]
        layers[WHOLE]["agreement"] = _share(sums)
        facts = {"examples": [fact["examples"] for fact in everyone], "layers": layers}
        if "score" in everyone[0]:
            facts["scores"] = [fact["score"] for fact in everyone]
        if self.channels.free:
            facts["moved"] = {
                axis.layer: [fact["moved"][axis.layer] for fact in everyone]
                for axis in self.channels.free
            }
            facts["maps"] = {axis.layer: axis.size for axis in self.channels.free}
        if taken:
            facts["taken"] = {layer: [piece["taken"][layer] for piece in pieces] for layer in taken}
        return facts


def _sum(parts: Any) -> tuple[float, int] | None:
    found = list(parts)
    return (sum(p[0] for p in found), sum(p[1] for p in found)) if found else None


def _share(parts: Sequence[Sequence[float] | None]) -> float | None:
    """The majority's share over all pieces, or None where nothing was compared."""
    found = [part for part in parts if part is not None]
    count = sum(part[1] for part in found)
    return sum(part[0] for part in found) / count if count else None
