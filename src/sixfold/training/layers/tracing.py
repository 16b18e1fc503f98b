"""A user's own module read as a graph of layers: what its forward calls, in order.

torch.fx runs the forward once with stand-ins for tensors, which write down what is done to them
(`sixfold.models.graph.trace`). What such a run cannot see is looked for: attributes that the
forward changes, random numbers that it draws, values that it changes in place while others still
use them, results that it throws away. Then the module is left to autograd. What even so escapes (a
decision by `isinstance`, `torch.no_grad` around a part) is found when the graph is first used: see
`sixfold.training.layers.verification`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from sixfold.models.graph.trace import Tracer, first_line
from sixfold.training.layers.calls import CONCATENATION, LAYERS, SUM, Entry, entries_of
from sixfold.training.layers.rewrites import fused_in_line, has_hooks
from sixfold.training.layers.side_effects import CannotFollowError, training, untouched


@dataclass(kw_only=True)
class Stage:
    """A part of a graph that gives one value."""

    kind: str  # one of those of `sixfold.training.layers.calls`
    layers: list[nn.Module]  # in line; for `PLAIN` and `OTHER` the one module that makes the call
    # Numbers of values: 0 is what the graph is given, k the result of its k-th stage.
    inputs: list[int]
    # Of every layer, or of the call: what it was in the forward, below the module.
    names: list[tuple[str, ...]]
    dim: int = 0  # of a concatenation
    relu: bool = False  # whether a ReLU follows a sum, as part of it

    @property
    def title(self) -> str:
        """What a stage that is no layers does, in a word: the function's name."""
        return self.names[0][0].rpartition(".")[2].partition("#")[0]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A module as stages, each of which takes values of stages before it."""

    module: nn.Module  # what was read
    stages: list[Stage]  # in order of execution
    output: int  # the number of the value that is returned
    # Modules whose forward was followed, with the mode that each was in.
    followed: list[tuple[nn.Module, bool]]
    unused: list[nn.Parameter]  # parameters that no call takes
    left: dict[str, str]  # parts that could not be followed, by path, and why

    @property
    def has_its_mode(self) -> bool:
        """Whether the module is in the mode (training or not) in which it was read."""
        return all(module.training == mode for module, mode in self.followed)

    def run(self, x: Tensor) -> Tensor:
        """What the stages make of an input, without gradients; values go with their last use."""
        values: list[Any] = [x]
        last = {place: n for n, stage in enumerate(self.stages) for place in stage.inputs}
        for number, stage in enumerate(self.stages):
            given = [values[place] for place in stage.inputs]
            for place in stage.inputs:
                if last[place] == number:
                    values[place] = None
            values.append(_computed(stage, given))
        found: Tensor = values[self.output]
        return found


def _computed(stage: Stage, given: list[Any]) -> Any:
    if stage.kind == CONCATENATION:
        return torch.cat(given, stage.dim)
    if stage.kind == SUM:
        return (given[0] + given[1]).relu() if stage.relu else given[0] + given[1]
    for layer in stage.layers:
        given = [layer(*given)]
    return given[0]


class StagedNetwork(nn.Module):
    """A network that was made of stages, so that nothing has to be found out about its forward."""

    graph: Graph


def read_graph(module: nn.Module) -> Graph:
    """Read a module as it is while training; a `CannotFollowError` with the reason."""
    tracer = _Tracer()
    with training(module), untouched(module):
        try:
            graph = tracer.trace(module)
        except Exception as error:
            raise CannotFollowError(_reason(error)) from error
        entries, output = entries_of(module, graph)
        followed = [(part, part.training) for part in [module, *tracer.followed]]
    _check_places(entries, output)
    stages, number = stages_of(entries, output)
    return Graph(
        module=module,
        stages=stages,
        output=number,
        followed=followed,
        unused=_unused(module, stages),
        left=tracer.left,
    )


class _Tracer(Tracer):
    """Leaves what cannot be followed, and what is watched, as one call."""

    def __init__(self) -> None:
        super().__init__()
        self.followed: list[nn.Module] = []
        self.left: dict[str, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            super().is_leaf_module(m, module_qualified_name)
            or has_hooks(m)
            or module_qualified_name in self.left
        )

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        stack, known = self.module_stack.copy(), len(self.graph.nodes)
        followed = list(self.followed)
        try:
            self.followed.append(m)
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            self.module_stack, self.followed = stack, followed
            for node in reversed(list(self.graph.nodes)[known:]):
                self.graph.erase_node(node)
            self.left[path] = _reason(error)
            return super().call_module(m, forward, args, kwargs)


def _reason(error: Exception) -> str:
    return first_line(error).partition(". ")[0]


_FRESH = (
    "sixfold.training.native.max_pool",
    *(
        f"torch.nn.modules.{name}"
        for name in ("conv", "linear", "batchnorm", "pooling", "normalization", "activation")
    ),
)
"""Where the layers are defined whose results lie in memory of their own."""


def _check_places(entries: list[Entry], output: fx.Node) -> None:
    """Make sure that nobody uses a value after another call has changed it in place."""
    memory: dict[fx.Node, set[fx.Node]] = {}
    changed: dict[fx.Node, str] = {}
    for entry in entries:
        for node in entry.inputs:
            if node in changed:
                raise CannotFollowError(f"it uses a value that {changed[node]} has changed")
            memory.setdefault(node, {node})
        own = {entry.node}
        if not _is_fresh(entry):
            own = own.union(*(memory[node] for node in entry.inputs))
        if entry.in_place:
            changed |= dict.fromkeys(memory[entry.inputs[0]], entry.name)
            own = {entry.node}
        for node in own:
            memory[node] = own
    if output in changed:
        raise CannotFollowError(f"it returns a value that {changed[output]} has changed")


def _is_fresh(entry: Entry) -> bool:
    """Whether a result is in memory of its own."""
    if entry.anew or entry.kind in (SUM, CONCATENATION):
        return True
    last = entry.layers[-1] if entry.layers else None
    return type(last).__module__.startswith(_FRESH)


def stages_of(entries: list[Entry], output: Any) -> tuple[list[Stage], int]:
    """Entries put together: layers of which each takes the one before, and nobody else does."""
    users: dict[Any, int] = {output: 1}
    for entry in entries:
        for node in entry.inputs:
            users[node] = users.get(node, 0) + 1
    numbers: dict[Any, int] = {}
    stages: list[Stage] = []
    before: Any = None
    for entry in entries:
        follows = entry.inputs == [before] and before is not None and users[before] == 1
        if entry.kind == LAYERS and follows and stages[-1].kind == LAYERS:
            stages[-1].layers += entry.layers
            stages[-1].names += [(entry.name,)] * len(entry.layers)
        elif entry.kind == LAYERS and follows and _takes_relu(stages[-1], entry):
            stages[-1].relu = True
            stages[-1].names[0] += (entry.name,)
        else:
            stages.append(
                Stage(
                    kind=entry.kind,
                    layers=list(entry.layers),
                    inputs=[numbers.get(node, 0) for node in entry.inputs],
                    names=[(entry.name,)] * max(len(entry.layers), entry.kind != LAYERS),
                    dim=entry.dim,
                )
            )
        numbers[entry.node] = len(stages)
        before = entry.node
    for stage in stages:
        if stage.kind == LAYERS:
            stage.layers, stage.names = fused_in_line(stage.layers, stage.names)
    return stages, numbers[output]


def _takes_relu(stage: Stage, entry: Entry) -> bool:
    plain_relu = [type(layer) for layer in entry.layers] == [nn.ReLU]
    return stage.kind == SUM and not stage.relu and plain_relu and not has_hooks(entry.layers[0])


def _unused(module: nn.Module, stages: list[Stage]) -> list[nn.Parameter]:
    """Parameters that no stage has; a `CannotFollowError` if two calls have the same."""
    taken: set[int] = set()
    for stage in stages:
        for layer in stage.layers:
            own = {id(parameter) for parameter in layer.parameters()}
            if taken & own:
                raise CannotFollowError("it uses weights more than once")
            taken |= own
    return [parameter for parameter in module.parameters() if id(parameter) not in taken]
