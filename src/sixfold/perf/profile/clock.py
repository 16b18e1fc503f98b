"""Times every layer of the step that training makes, forward and backward.

Nothing is run in a special way: the step's own executor is watched. A layer with its backward pass
written out is timed around its two calls. Where a network is left to autograd, forward passes are
timed around modules and around functions outside of them, and backward passes around each node of
the graph, which belongs to the layer in whose forward pass it was made.

What a step does besides its layers is timed too: `INPUT` (images brought into layout, buffers
saved), `LOSS` (cross-entropy and its gradient), `GRADIENTS` (what autograd does around its nodes,
and copies of gradients to where they are summed), `FOLD` (what is left of a shard, and the sum
over the own shards).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sixfold.models.graph.operations import plain_name
from sixfold.perf.profile.cost import LOSS
from sixfold.perf.profile.scopes import Scopes, followed, tensors_in
from sixfold.training.layers.blocks import Branches
from sixfold.training.layers.multi_input import PlainOp, SequenceOp
from sixfold.training.layers.operations import AutogradOp, LayerOp, Run, SpatialSumOp
from sixfold.training.layers.user_forward import GraphExecutor
from sixfold.training.step.step import Shard, Step

INPUT, GRADIENTS, FOLD = "(input)", "(autograd)", "(fold)"
"""What is timed besides layers; `LOSS` is a layer."""

FORWARD, BACKWARD, AROUND = "forward", "backward", "around"
"""What a span belongs to; `AROUND` is what is neither."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time."""

    layer: str  # name of the layer, or of what is done besides layers
    direction: str  # `FORWARD`, `BACKWARD` or `AROUND`
    function: str  # what was called within it; empty for the layer itself
    begin: float  # seconds of the clock
    end: float  # seconds of the clock

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.end - self.begin


class Clock:
    """Watches a step while `attached`; `operators` also times torch's, which takes time itself."""

    def __init__(self, step: Step, *, operators: bool = False) -> None:
        self._step, self._with_operators = step, operators
        # Shards that advance together are threads of their own: only their own time counts then.
        self._now = time.thread_time if step.lockstep is not None else time.perf_counter
        self.spans: list[Span] = []  # in order of their ends
        # name of a layer -> its module's class, or its function
        self.kinds: dict[str, str] = {LOSS: "cross-entropy"}
        # name of a layer -> the layers that are computed as one with it, itself first
        self.groups: dict[str, tuple[str, ...]] = {}
        self._made = {id(link): layers for link, layers in step.executor.made}
        self._paths = {id(module): path for path, module in step.model.named_modules()}
        self._names: dict[int, tuple[str, ...]] = {}
        for graph in [
            link.graph for link, _ in step.executor.made if isinstance(link, GraphExecutor)
        ]:
            for stage in graph.stages:
                for layer, names in zip(stage.layers, stage.names, strict=False):
                    self._names[id(layer)] = self._below(graph.module, names)
        self._local = threading.local()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While open, the step is watched; afterwards it is as it was."""
        step, executor = self._step, self._step.executor
        forward, backward, payload = executor.forward, executor.backward, step.shard_payload
        with ExitStack() as stack:
            stack.enter_context(followed(step.model, self._scopes))
            self._dress(executor.run, stack)
            vars(executor).update(forward=self._timed_forward(forward))
            vars(executor).update(backward=self._timed_backward(backward))
            vars(step).update(shard_payload=self._timed_payload(payload))
            stack.callback(vars(step).pop, "shard_payload")
            stack.callback(vars(executor).pop, "forward")
            stack.callback(vars(executor).pop, "backward")
            yield

    def _dress(self, run: Run, stack: ExitStack) -> None:
        """Put watches around the links of a run until the stack is closed."""
        links, run.links = run.links, [self._watched(link, stack) for link in run.links]
        stack.callback(setattr, run, "links", links)

    def _watched(self, link: LayerOp, stack: ExitStack) -> LayerOp:
        if isinstance(link, AutogradOp):
            return _Watch(link, partial(_autograd, self))
        made = self._made.get(id(link), [])
        if isinstance(link, GraphExecutor):
            return self._watched_graph(link, stack)
        if isinstance(link, SpatialSumOp):
            for branch in link.branches:
                self._dress(branch, stack)
            block = made[0].block if made and isinstance(made[0], Branches) else None
            path = self._paths.get(id(block), "")
            names = [".".join(part for part in (path, "add") if part)]
            if made and isinstance(made[0], Branches) and made[0].relu:
                names.append(f"{path}.relu")
            self.kinds[names[0]] = "add, ReLU" if len(names) > 1 else "add"
        else:
            layers = [layer for layer in made if isinstance(layer, nn.Module)]
            # An exchange has the name of the layer for which it is made.
            names = list(dict.fromkeys(name for x in layers for name in self._names_of(x)))
            self.kinds[names[0]] = ", ".join(type(layer).__name__ for layer in layers)
        self.groups[names[0]] = tuple(names)
        has_branches = isinstance(link, SpatialSumOp)
        return _Watch(link, partial(_as_layer, self, names[0], has_branches))

    def _names_of(self, layer: nn.Module) -> tuple[str, ...]:
        known = self._names.get(id(layer))
        return known or (self._paths[id(layer)],)

    def _below(self, module: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
        """Names within a module as names within the network."""
        path = self._paths.get(id(module), "")
        return tuple(".".join(part for part in (path, name) if part) for name in names)

    def _watched_graph(self, link: GraphExecutor, stack: ExitStack) -> LayerOp:
        """Put watches around what a graph consists of."""
        for run in link.runs:
            self._dress(run, stack)
        nodes, otherwise = list(link.nodes), link.otherwise
        for place, (node, stage) in enumerate(zip(nodes, link.graph.stages, strict=True)):
            if isinstance(node.join, (SequenceOp, PlainOp)):
                continue
            names = self._below(link.graph.module, stage.names[0])
            self.kinds[names[0]] = "add, ReLU" if stage.relu else stage.title
            self.groups[names[0]] = names
            watch = _Watch(node.join, partial(_as_layer, self, names[0], False))
            link.nodes[place] = replace(node, join=watch)
        if isinstance(otherwise, AutogradOp):
            link.otherwise = _Watch(otherwise, partial(_autograd, self))
        stack.callback(vars(link).update, nodes=nodes, otherwise=otherwise)
        return _GraphWatch(link, self)

    def add(self, layer: str, direction: str, function: str, begin: float) -> None:
        """A stretch that ends now."""
        self.spans.append(Span(layer, direction, function, begin, self._now()))

    def now(self) -> float:
        """Seconds of the clock."""
        return self._now()

    def _scopes(self) -> Scopes | None:
        """Where modules are told that run; none while a link is timed as a whole."""
        current: _Pass | None = getattr(self._local, "current", None)
        return None if current is None or current.is_muted else current.scopes

    @property
    def pass_(self) -> _Pass:
        """The pass through the network that the calling thread makes."""
        found: _Pass = self._local.current
        return found

    def _timed_payload(self, payload: Callable[..., None]) -> Callable[..., None]:
        def timed(step: int, shard: Shard, out: Tensor) -> None:
            current = self._local.current = _Pass(self)
            with ExitStack() as stack:
                if self._with_operators:
                    stack.enter_context(_Operators(self))
                current.mark = self._now()
                payload(step, shard, out)
            self.add(FOLD, AROUND, "", current.mark)
            current.forget()

        return timed

    def _timed_forward(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def timed(x: Tensor) -> Any:
            current = self.pass_
            self.add(INPUT, AROUND, "", current.mark)
            result = forward(x)
            current.mark = self._now()
            current.place = (LOSS, FORWARD)
            return result

        return timed

    def _timed_backward(self, backward: Callable[..., None]) -> Callable[..., None]:
        def timed(saved: list[Any], grad: Tensor, out: Sequence[Tensor]) -> None:
            current = self.pass_
            self.add(LOSS, FORWARD, "", current.mark)
            backward(saved, grad, out)
            current.mark = self._now()
            current.place = (FOLD, AROUND)

        return timed


class _Pass:
    """One pass of a shard through the network, forward and backward."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.place = (INPUT, AROUND)  # layer and direction that is running
        self.mark = 0.0  # when the last stretch that is no layer began
        self.scopes = Scopes(self)  # which module is running
        self.is_muted = False  # whether a link is timed as a whole, whatever modules it may call
        self._began = 0.0
        self._nodes: dict[Any, None] = {}
        self.in_nodes_s = 0.0

    def opened(self, name: str, kind: str) -> None:
        self._clock.kinds[name] = kind
        self.place = (name, FORWARD)
        self._began = self._clock.now()

    def closed(self, module: nn.Module | None) -> None:
        del module
        self._clock.add(self.place[0], FORWARD, "", self._began)
        self.place = (GRADIENTS, FORWARD)

    def made(self, output: Any) -> None:
        self.claim(output)

    def claim(self, output: Any) -> None:
        """Nodes that have come into the graph since the last call belong to this place."""
        layer = self.place[0]
        waiting = [tensor.grad_fn for tensor in tensors_in(output) if tensor.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node in self._nodes or node.name() == "torch::autograd::AccumulateGrad":
                continue
            self._nodes[node] = None
            self._watch(node, layer)
            waiting += [found for found, _ in node.next_functions if found is not None]

    def _watch(self, node: Any, layer: str) -> None:
        began = 0.0
        before = self.place

        def enter(grads: Any) -> None:
            nonlocal began, before
            del grads
            before, self.place = self.place, (layer, BACKWARD)
            began = self._clock.now()

        def leave(grads: Any, outputs: Any) -> None:
            del grads, outputs
            self._clock.add(layer, BACKWARD, "", began)
            self.in_nodes_s += self._clock.now() - began
            self.place = before

        node.register_prehook(enter)
        node.register_hook(leave)

    def forget(self) -> None:
        self._nodes.clear()


class _Watch:
    """A link, or what joins several, timed around its two calls."""

    def __init__(self, link: Any, around: Callable[[str], AbstractContextManager[None]]) -> None:
        self._link, self._around = link, around
        self.has_weights: bool = link.has_weights

    def forward(self, x: Any, wanted: Any) -> tuple[Any, Any]:
        with self._around(FORWARD):
            made: tuple[Any, Any] = self._link.forward(x, wanted)
        return made

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Any:
        with self._around(BACKWARD):
            return self._link.backward(saved, grad, out)


@contextmanager
def _as_layer(clock: Clock, name: str, has_branches: bool, direction: str) -> Iterator[None]:
    """A link with its backward pass written out; links in its branches are layers of their own."""
    current = clock.pass_
    before, current.place = current.place, (name, direction)
    muted, current.is_muted = current.is_muted, not has_branches
    begin, known = clock.now(), len(clock.spans)
    yield
    inside = sum(span.seconds for span in clock.spans[known:] if not span.function)
    # What is left without the branches is drawn at the end: the sum, or the ReLU's gradient.
    clock.add(name, direction, "", begin + inside)
    current.place, current.is_muted = before, muted


class _GraphWatch(_Watch):
    """A module with a forward of its own; its layers are watched, what is left is around them."""

    def __init__(self, link: GraphExecutor, clock: Clock) -> None:
        super().__init__(link, partial(_around, clock))
        self._clock = clock

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        current = self._clock.pass_
        muted, current.is_muted = current.is_muted, True
        self._link.settle(x)
        current.is_muted = muted
        return super().forward(x, wanted)


@contextmanager
def _around(clock: Clock, direction: str) -> Iterator[None]:
    """What is no layer's: Python between layers, sums of gradients, autograd between nodes."""
    current = clock.pass_
    current.place = (GRADIENTS, direction)
    begin, known = clock.now(), len(clock.spans)
    yield
    layers = sum(span.seconds for span in clock.spans[known:] if not span.function)
    rest = max(clock.now() - begin - layers, 0.0)
    clock.spans.append(Span(GRADIENTS, direction, "", begin, begin + rest))


@contextmanager
def _autograd(clock: Clock, direction: str) -> Iterator[None]:
    """A stretch of the network that is left to autograd."""
    with _around(clock, direction), _Functions(clock) if direction == FORWARD else nullcontext():
        yield


class _Functions(TorchFunctionMode):
    """Sees functions that are called outside of layers, and claims the nodes of all."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        clock, current = self._clock, self._clock.pass_
        if current.scopes.in_layer:
            result = func(*args, **(kwargs or {}))
            current.claim(result)
            return result
        before, begin, known = current.place, clock.now(), len(clock.spans)
        name = plain_name(func)
        current.place = (current.scopes.peek(name), FORWARD)
        result = func(*args, **(kwargs or {}))
        if name != "requires_grad" and _computes(args, result):
            layer = current.scopes.outside(name)
            clock.kinds[layer] = name
            current.place = (layer, FORWARD)
            clock.add(layer, FORWARD, "", begin)
            current.claim(result)
        else:  # a view, or a question: no layer
            for place in range(known, len(clock.spans)):
                clock.spans[place] = replace(clock.spans[place], layer=GRADIENTS)
        current.place = before
        return result


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Times every operator of torch, in the layer that is running."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clock = clock

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        clock = self._clock
        layer, direction = clock.pass_.place
        begin = clock.now()
        result = func(*args, **(kwargs or {}))
        clock.add(layer, direction, func._schema.name, begin)
        return result


def _computes(args: tuple[Any, ...], result: Any) -> bool:
    """Whether a function has made something new, and not another view of what it was given."""
    if not isinstance(result, Tensor) or not result.is_floating_point():
        return False
    given = [tensor for tensor in tensors_in(args) if tensor.dtype == result.dtype]
    if any(tensor is result for tensor in given):
        return result._version > 0  # in place
    memory = result.untyped_storage().data_ptr()
    return all(tensor.untyped_storage().data_ptr() != memory for tensor in given)
