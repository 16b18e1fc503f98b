"""What every rank of a profile does: real training steps, some of them watched.

A profile is a training without evaluations. After `WARM` steps plain ones and ones whose layers
are timed take turns, so that both see the same machine; their difference is what timing costs.
Then come two steps whose operators are timed as well, and one whose memory is measured.
"""

import dataclasses
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from sixfold import data as datasets
from sixfold.core.errors import UserError
from sixfold.distributed.process_group import Communicator
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.models.meta_initialization import build_on_meta
from sixfold.perf.profile.clock import AROUND, BACKWARD, FOLD, FORWARD, INPUT, Clock, Span
from sixfold.perf.profile.cost import LayerCost
from sixfold.perf.profile.exchanges import Exchanged, NotedTransport
from sixfold.perf.profile.layers import layer_costs
from sixfold.perf.profile.memory import Peak, watched_memory
from sixfold.perf.profile.results import (
    COSTS,
    FunctionTime,
    Layer,
    Memory,
    RankFigures,
    WatchedExchanges,
    WatchedStep,
)
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool
from sixfold.training.log import TimedIterator
from sixfold.training.native.max_pool import is_built
from sixfold.training.step.step import Shard, Step
from sixfold.training.strategies.model_parallel.network import DividedNetwork
from sixfold.training.worker import Training, TrainJob

WARM = 3  # steps before anything counts: caches, allocator, and the first batches are not yet there
PHASES = ("data", "compute", "communication", "waiting", "update")
"""What a rank's log divides a step into."""

OWN_KERNELS = {"MaxPoolReLU2d": "sixfold::max_pool", "BatchNorm2d": "sixfold::batch_norm"}
"""Kernels of ours, by the class of the layer that they compute."""

PLAIN, CLOCK, OPERATORS, MEMORY = "plain", "clock", "operators", "memory"  # kinds of steps


@dataclass(frozen=True, kw_only=True)
class ProfileJob:
    """What the launcher hands to every rank."""

    training: TrainJob  # the settings and the run directory
    repeats: int  # plain steps, and as many whose layers are timed


def kinds_of_steps(repeats: int) -> list[str]:
    """What is done with each step, in order.

    >>> kinds_of_steps(1)
    ['warm', 'warm', 'warm', 'plain', 'clock', 'operators', 'operators', 'memory']
    """
    # The first step with operators meets what is done once only: the second counts.
    return ["warm"] * WARM + [PLAIN, CLOCK] * repeats + [OPERATORS] * 2 + [MEMORY]


def profile_rank(job: ProfileJob, comm: Communicator) -> dict[str, Any]:
    """Make the steps of a profile; what was measured goes to ``profile/rank-0000.json``."""
    with one_thread():
        return _Profile(job, comm).run()


class _Profile:
    def __init__(self, job: ProfileJob, comm: Communicator) -> None:
        self._kinds = kinds_of_steps(job.repeats)
        # Before anybody has made a part of the group, whose exchanges go through the same.
        self._transport = comm.transport = NotedTransport(comm.transport)
        self._training = Training(job.training, comm)
        step = getattr(self._training.strategy, "step", None)
        if not isinstance(step, Step):
            name = job.training.config.strategy.strategy
            raise UserError(f"--strategy {name}: its steps cannot be watched from within a rank")
        self._step = step
        self._steps: list[WatchedStep] = []
        self._spans: dict[str, list[list[Span]]] = {CLOCK: [], OPERATORS: []}
        self._sizes: list[int] = []
        self._layer_kinds: dict[str, str] = {}
        self._groups: dict[str, tuple[str, ...]] = {}
        self._peak = Peak()
        self._exchanges: list[WatchedExchanges] = []  # of each step whose layers are timed
        self._offset = time.time() - time.perf_counter()

    def run(self) -> dict[str, Any]:
        training = self._training
        comm = training.comm
        resident = psutil.Process().memory_info().rss
        offset = self._offset
        try:
            with datasets.prefetch(
                training.strategy.shards(0), depth=training.data.ahead
            ) as shards:
                timed = TimedIterator(self._counted(shards))
                for number, kind in enumerate(self._kinds):
                    self._advance(number, kind, timed)
        finally:
            training.log.close()
        found = RankFigures(
            rank=comm.rank,
            host=comm.host,
            steps=self._steps,
            shards={str(n): count for n, count in sorted(Counter(self._sizes).items())},
            memory=self._memory(resident),
            layers=self._layers(),
            exchanges=self._exchanges,
            spans=[
                (s.layer, s.direction, s.function, s.begin + offset, s.end + offset)
                for s in self._spans[OPERATORS][-1]
                if self._step.lockstep is None  # whose shards' clocks tell no common time
            ],
        )
        name = f"profile/rank-{comm.rank:04d}.json"
        (training.files.path / "profile").mkdir(exist_ok=True)
        training.files.write_json(name, dataclasses.asdict(found))
        return {"rank": comm.rank, "steps": len(self._kinds)}

    def _counted(self, shards: Iterable[Shard]) -> Any:
        """The shards as they are taken, their sizes noted."""
        for shard in shards:
            self._sizes.append(len(shard.labels))
            yield shard

    def _advance(self, number: int, kind: str, shards: TimedIterator[Shard]) -> None:
        self._sizes.clear()
        clock = Clock(self._step, operators=kind == OPERATORS)
        around: AbstractContextManager[Any] = nullcontext()
        if kind in (CLOCK, OPERATORS):
            around = clock.attached()
        elif kind == MEMORY:
            around = watched_memory()
        noted: list[Exchanged] | None = [] if kind == CLOCK else None
        self._transport.noted = noted
        with around as found:
            line = self._training.train_step(number, shards)
        self._transport.noted = None
        if isinstance(found, Peak):
            self._peak = found
        if kind in self._spans:
            self._spans[kind].append(clock.spans)
            self._layer_kinds |= clock.kinds
            self._groups |= clock.groups
        seconds = {f"{phase}_s": line[f"{phase}_s"] for phase in PHASES}
        whole = sum(seconds.values())
        if kind == CLOCK:
            for direction in (FORWARD, BACKWARD, AROUND):
                found_s = sum(s.seconds for s in clock.spans if s.direction == direction)
                seconds[f"{direction}_s"] = found_s
        if noted is not None:
            self._exchanges.append(self._watched(number + 1, noted, clock))
        self._steps.append(
            WatchedStep(
                step=number + 1,
                kind=kind,
                begin=line["begin"],
                whole_s=whole,
                samples=sum(self._sizes),
                **seconds,
            )
        )

    def _watched(self, number: int, noted: list[Exchanged], clock: Clock) -> WatchedExchanges:
        """The exchanges of a step, and its layers where these have the exchanges' clock."""
        spans = clock.spans if self._step.lockstep is None else []
        layers = [
            (s.layer if s.direction == AROUND else f"{s.layer} {s.direction}", s.begin, s.end)
            for s in spans
        ]
        return WatchedExchanges(
            step=number,
            exchanges=[own.moved(self._offset).as_plain() for own in noted],
            layers=[(n, a + self._offset, b + self._offset) for n, a, b in layers],
        )

    def _layers(self) -> list[Layer]:
        """Every layer's time and cost in a step of this rank, in order of execution."""
        costs = self._costs()
        times = [_by_layer(spans) for spans in self._spans[CLOCK]]
        kinds = self._layer_kinds
        own = {
            name: OWN_KERNELS[kind]
            for name in self._groups
            if is_built() and (kind := kinds[name].partition(",")[0]) in OWN_KERNELS
        }
        inside = [_by_function(spans, own) for spans in self._spans[OPERATORS]]
        names = dict.fromkeys(costs)
        for found in times:
            names |= dict.fromkeys(layer for layer, _ in found)
        names = dict.fromkeys([INPUT, *(n for n in names if n not in (INPUT, FOLD)), FOLD])
        rows = []
        for name in names:
            seconds: dict[str, Any] = {
                f"{direction}_s": statistics.median(
                    [found.get((name, direction), 0.0) for found in times] or [0.0]
                )
                for direction in (FORWARD, BACKWARD, AROUND)
            }
            functions = [
                FunctionTime(function=function, direction=direction, seconds=value, calls=calls)
                for (layer, direction, function), (value, calls) in inside[-1].items()
                if layer == name
            ]
            if any(seconds.values()) or name in costs:
                facts = costs.get(name) or Layer(name=name)
                kind = self._layer_kinds.get(name) or facts.kind
                rows.append(replace(facts, kind=kind, functions=functions, **seconds))
        return rows

    def _costs(self) -> dict[str, Layer]:
        """By arithmetic, what each layer costs in a step of this rank; empty if not known."""
        network, parts = self._network()
        found: dict[str, Layer] = {}
        for size, count in Counter(self._sizes).items():
            for cost in layer_costs(network, self._shape, size, dtype=self._dtype):
                found[cost.name] = _added(found.get(cost.name), cost, count / parts)
        for first, *others in self._groups.values():
            for other in others:
                if first in found and other in found:
                    found[first] = _joined(found[first], found.pop(other))
        return found

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self._training.data.shape

    @property
    def _dtype(self) -> torch.dtype:
        is_narrow = self._training.config.training.precision == "bf16"
        return torch.bfloat16 if is_narrow else self._step.state.dtype

    def _network(self) -> tuple[nn.Module, int]:
        """The network whose cost is counted, and into how many parts it is divided.

        A divided one, or one with synchronised norms, runs only together with other ranks or
        shards: in its place the plain one is counted.
        """
        model = self._step.model
        parts = model.mesh.size if isinstance(model, DividedNetwork) else 1
        if parts == 1 and self._step.lockstep is None:
            return model, 1
        config, data = self._training.config, self._training.data
        classes, seed = data.outputs, config.training.seed
        found = build_on_meta(config.model, shape=data.shape, classes=classes, seed=seed)
        return fused_max_pool(relu_behind_max_pool(found.network)), parts

    def _memory(self, resident: int) -> Memory:
        """What the step holds, accounted by kind, and the peaks that were measured."""
        step, state = self._step, self._step.state
        optimizer = getattr(self._training.strategy, "optimizer", None)
        slots: list[Tensor] = list(getattr(optimizer, "slots", {}).values())
        kept = 0
        if self._sizes:
            network, parts = self._network()
            costs = layer_costs(network, self._shape, max(self._sizes), dtype=self._dtype)
            kept = sum(cost.kept_bytes for cost in costs) // parts
        payload = step.new_payload()
        return Memory(
            rank=self._training.comm.rank,
            weights_bytes=_bytes(state.parameters),
            buffers_bytes=_bytes(state.buffers),
            optimizer_bytes=sum(map(_bytes, slots)),
            gradients_bytes=(step.payloads + 1) * _bytes(payload),
            activations_bytes=kept,
            step_peak_bytes=self._peak.tensor_bytes,
            resident_before_bytes=resident,
            resident_peak_bytes=self._peak.process_bytes,
        )


def _by_layer(spans: list[Span]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for span in spans:
        if not span.function:
            key = (span.layer, span.direction)
            found[key] = found.get(key, 0.0) + span.seconds
    return found


def _by_function(
    spans: list[Span], own: dict[str, str]
) -> dict[tuple[str, str, str], tuple[float, int]]:
    """Seconds and calls of each (layer, direction, operator), and what is left of each layer.

    What is left are the calls themselves, with the operator "", or the kernel of ours (`own`, by
    layer) that computes it.
    """
    found: dict[tuple[str, str, str], tuple[float, int]] = {}
    rest = _by_layer(spans)
    for span in spans:
        if span.function:
            key = (span.layer, span.direction, span.function)
            seconds, calls = found.get(key, (0.0, 0))
            found[key] = (seconds + span.seconds, calls + 1)
            if key[:2] in rest:
                rest[key[:2]] -= span.seconds
    for (layer, direction), seconds in rest.items():
        found[layer, direction, own.get(layer, "")] = (max(seconds, 0.0), 1)
    return found


def _added(before: Layer | None, cost: LayerCost, count: float) -> Layer:
    """The cost of `count` more shards, or of parts of them."""
    sums = {name: round(count * getattr(cost, name)) for name in COSTS}
    if before is not None:
        sums = {name: value + getattr(before, name) for name, value in sums.items()}
    return Layer(
        name=cost.name,
        kind=cost.kind,
        counted=True,
        parameters=cost.parameters,
        input_shapes=[list(shape) for shape in cost.input_shapes],
        output_shape=list(cost.output_shape),
        unknown=list(cost.unknown),
        **sums,
    )


def _joined(first: Layer, other: Layer) -> Layer:
    """A layer with what is computed in one with it.

    An activation behind a norm works on values that are at hand, so it moves nothing.
    """
    sums = {
        name: getattr(first, name) + getattr(other, name)
        for name in COSTS
        if first.kind == "add" or not name.endswith(("forward_bytes", "backward_bytes"))
    }
    return replace(first, unknown=first.unknown + other.unknown, **sums)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
