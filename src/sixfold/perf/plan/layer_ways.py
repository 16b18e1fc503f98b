"""Which way each layer of a divided network goes: dynamic programming over its layers.

The network's calls are gone through in order. A *state* is how all values that are still needed are
divided; of all choices that lead to the same state only the quickest is kept, so a chain of layers
costs (ways)^2 trials a layer instead of (ways)^layers in all. What a layer costs in a way is read
off the operations that `model_parallel` itself makes of it: products, bytes that pass through
memory, and the exchanges that bring its input from the layout in which that is.

    t(layer) = products / PRODUCTS_PER_S + weights read / WEIGHTS_PER_S + bytes / BYTES_PER_S
               + exchanges (EXCHANGE_S + bytes / LINK_BYTES_PER_S)

These are estimates from shapes and constants, so the same network on as many ranks is always
divided in the same way. The planner scales them by what it has measured of whole grids.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from torch import nn

from sixfold.distributed.process_group import Communicator, SingleProcess
from sixfold.models.graph.trace import Call, trace
from sixfold.models.shapes import Shape
from sixfold.perf.plan.candidates import meshes
from sixfold.training.strategies.model_parallel.catalog import Rule, look_up
from sixfold.training.strategies.model_parallel.conv import LocalConv
from sixfold.training.strategies.model_parallel.division import INPUTS, OUTPUTS, LayerGrid
from sixfold.training.strategies.model_parallel.exchange_ops import Gather, ReduceScatter
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import everywhere, sizes, volume
from sixfold.training.strategies.model_parallel.linear import LocalLinear
from sixfold.training.strategies.model_parallel.move import Move, Pieces
from sixfold.training.strategies.model_parallel.network import Dividing
from sixfold.training.strategies.model_parallel.norm import LocalNorm
from sixfold.training.strategies.model_parallel.value import Divided, Value

PRODUCTS_PER_S = 37e9
WEIGHTS_PER_S = 1e9
CALL_S = 20e-6
"""Of torch's convolutions on a core of an AMD EPYC. That of 32 maps of 42x42 with 64 filters, 6x6,
stride 2, one image (29 million products, 74 thousand weights), takes 0.79 ms forward and 1.79 ms
backward; half of its rows 0.46 and 1.03 ms, half of its output channels 0.41 and 0.96 ms."""

BYTES_PER_S = 8e9
"""Through one core's caches and memory."""
EXCHANGE_S, LINK_BYTES_PER_S = 60e-6, 3e9
"""Between two processes of a machine: 25 microseconds to pack and unpack, the rest to meet."""
UPDATE_S = 1.5e-9
"""A step, for each parameter of a rank: sum, mean and update of `cells`' 184 thousand, 0.27 ms."""

MOST_STATES = 256
"""Beyond these, states that cost most are dropped; networks of one branch never have so many."""

Way = Mesh | str | None


@dataclass(frozen=True)
class LayerWays:
    """A division for each layer, and the seconds that a shard takes by these estimates."""

    grid: LayerGrid
    shard_s: float


@dataclass(frozen=True)
class _Step:
    """A call that computes, or one that gives a value another shape."""

    call: Call
    rule: Rule
    inputs: tuple[str, ...]
    result: str


_State = tuple[tuple[str, Value], ...]


class WaySearch:
    """Ways of one network on a group of ranks.

    Args:
        network: on the meta device.
        shape: (C, H, W) of an image.
        ranks: of the group.
        samples: of a logical shard.
        shards: logical shards of a step that the group computes.

    Raises:
        UnsupportedError: if the network cannot be divided.
    """

    def __init__(
        self, network: nn.Module, shape: Shape, ranks: int, samples: float, shards: int = 1
    ) -> None:
        self._ranks, self._samples, self._shards = ranks, samples, shards
        self._traced = trace(network, shape)
        self._shape = shape
        # The first rank and the last one: their parts differ most.
        self._probes = [self._dividing(rank) for rank in sorted({0, ranks - 1})]
        self._steps = list(self._read())
        self._prices: dict[tuple[int, Way, tuple[Value, ...]], tuple[Value, float]] = {}

    def _dividing(self, rank: int) -> Dividing:
        group = Communicator(
            rank=rank, size=self._ranks, host="", attempt=0, transport=SingleProcess()
        )
        return Dividing(self._traced, self._shape, group, Mesh(rows=self._ranks))

    def _read(self) -> Iterator[_Step]:
        names: dict[str, str] = {}
        shapes = self._probes[0].shapes
        for call in self._traced.calls:
            if call.shape is None:
                continue
            rule = look_up(call, shapes)
            inputs = tuple(_followed(names, node.name) for node in rule.inputs)
            yield _Step(call, rule, inputs, call.node.name)
            if rule.in_place:
                names[rule.inputs[0].name] = call.node.name

    def best(self) -> LayerWays:
        """The quickest division of all that these estimates know."""
        return self._search(self._ways)

    def of(self, grid: LayerGrid) -> LayerWays:
        """A given division."""
        ways = dict(grid.layers)

        def given(step: _Step) -> Sequence[Way]:
            if isinstance(step.rule.layer, nn.Conv2d):
                return [ways.get(step.call.name, grid.mesh)]
            return [ways.get(step.call.name, INPUTS)]

        return replace(self._search(given), grid=grid)

    def _search(self, allowed: Callable[[_Step], Sequence[Way]]) -> LayerWays:
        source = self._traced.source.name
        raw = Value(everywhere(Mesh(rows=self._ranks), self._shape), raw=True)
        states: dict[_State, tuple[float, tuple[Way, ...]]] = {((source, raw),): (0.0, ())}
        last = {name: n for n, step in enumerate(self._steps) for name in step.inputs}
        output = self._probes[0].names.get(self._traced.output.name, self._traced.output.name)
        last[output] = len(self._steps)
        for number, step in enumerate(self._steps):
            found: dict[_State, tuple[float, tuple[Way, ...]]] = {}
            for state, (seconds, ways) in states.items():
                values = dict(state)
                inputs = tuple(values[name] for name in step.inputs)
                for way in allowed(step):
                    value, price = self._price(number, way, inputs)
                    kept = {n: v for n, v in values.items() if last.get(n, -1) > number}
                    after = tuple(sorted((kept | {step.result: value}).items(), key=_by_name))
                    known = found.get(after)
                    if known is None or seconds + price < known[0]:
                        found[after] = seconds + price, (*ways, way)
            states = dict(sorted(found.items(), key=_by_cost)[:MOST_STATES])
        seconds, ways = min(states.values(), key=lambda entry: entry[0])
        return LayerWays(self._grid(ways), seconds)

    def _ways(self, step: _Step) -> Sequence[Way]:
        layer, shape = step.rule.layer, step.call.shape
        assert shape is not None
        if isinstance(layer, nn.Conv2d):
            fitting = [
                mesh
                for mesh in meshes(self._ranks)
                if mesh.rows <= shape[2]
                and mesh.cols <= shape[3]
                and mesh.cout <= shape[1]
                and mesh.cin <= layer.in_channels
            ]
            return fitting or [Mesh(rows=self._ranks)]
        if isinstance(layer, nn.Linear):
            return [INPUTS, OUTPUTS]
        return [None]

    def _grid(self, ways: Sequence[Way]) -> LayerGrid:
        """The usual mesh, and layers that differ from it."""
        chosen = list(zip(self._steps, ways, strict=True))
        counts = Counter(way for _, way in chosen if isinstance(way, Mesh))
        usual = counts.most_common(1)[0][0] if counts else Mesh(rows=self._ranks)
        layers = tuple(
            (step.call.name, way)
            for step, way in chosen
            if way == OUTPUTS or (isinstance(way, Mesh) and way != usual)
        )
        return LayerGrid(mesh=usual, layers=layers)

    def _price(self, number: int, way: Way, inputs: tuple[Value, ...]) -> tuple[Value, float]:
        """How a layer's output is divided, and what that costs on the slowest rank."""
        key = number, way, inputs
        if key not in self._prices:
            self._prices[key] = self._priced(self._steps[number], way, inputs)
        return self._prices[key]

    def _priced(self, step: _Step, way: Way, inputs: tuple[Value, ...]) -> tuple[Value, float]:
        call = step.call
        assert call.shape is not None
        if step.rule.division is None:
            is_flat = inputs[0].flat or len(call.shape) == 2
            return replace(inputs[0], flat=is_flat), 0.0
        seconds, layout = 0.0, inputs[0].layout
        for probe in self._probes:
            made = probe.operations(call, step.rule, inputs, way)
            layout = made.layout
            seconds = max(seconds, self._cost(made, inputs, probe.group.rank))
        return Value(layout, flat=len(call.shape) == 2), seconds

    def _cost(self, made: Divided, inputs: Sequence[Value], rank: int) -> float:
        """Seconds of one rank, forward and backward, for a shard."""
        out = prod(sizes(made.layout.box(rank)))
        given = zip(made.gathers, inputs, strict=True)
        seconds = sum(self._exchange(gather, value) for gather, value in given)
        raw = all(value.raw for value in inputs)
        for layer in made.layers:
            if isinstance(layer, LocalConv):
                pixels = prod(sizes(made.layout.box(rank))[1:])
                seconds += self._product(layer.weight.numel(), pixels, 2 if raw else 3)
            elif isinstance(layer, LocalLinear):
                seconds += self._product(layer.weight.numel(), 1, 2 if raw else 3)
            elif isinstance(layer, ReduceScatter):
                seconds += 2 * self._moved(layer.move.contributes, layer.move.collects, rank)
            else:
                seconds += CALL_S + 8 * self._samples * out * 4 / BYTES_PER_S
            if isinstance(layer, LocalNorm) and layer.reduction() is not None:
                seconds += 2 * EXCHANGE_S
        if made.owner is not None:
            for name, parameter in made.owner.named_parameters():
                seconds += UPDATE_S * parameter.numel() / self._shards
                if made.owner.parts[name].summed:
                    seconds += 2 * parameter.numel() * 4 / LINK_BYTES_PER_S / self._shards
        return seconds

    def _product(self, weights: int, pixels: int, passes: int) -> float:
        products = weights * pixels * self._samples
        return passes * (products / PRODUCTS_PER_S + weights / WEIGHTS_PER_S + CALL_S)

    def _exchange(self, gather: Gather, value: Value) -> float:
        """Bringing an input, and its gradient back."""
        move: Move = gather.move
        if value.raw or gather.is_trivial:
            return 0.0
        rank = gather.comm.rank
        there = self._moved(move.gives, move.takes, rank)
        back = self._moved(move.contributes, move.collects, rank)
        copied = 2 * volume(move.need) * self._samples * 4 / BYTES_PER_S
        return there + back + 2 * copied

    def _moved(self, sent: Pieces, received: Pieces, rank: int) -> float:
        """One exchange of a rank."""
        numbers = max(
            sum(volume(box) for peer, box in pieces if peer != rank) for pieces in (sent, received)
        )
        if not numbers:
            return 0.0
        return EXCHANGE_S + numbers * self._samples * 4 / LINK_BYTES_PER_S


def _by_name(item: tuple[str, Value]) -> str:
    return item[0]


def _by_cost(item: tuple[_State, tuple[float, tuple[Way, ...]]]) -> float:
    return item[1][0]


def _followed(names: dict[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name
