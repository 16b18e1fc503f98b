"""A user's own module read as a graph of layers: what its forward calls, in order.

torch.fx runs the forward once with stand-ins for tensors, which write down what is done to them
(`sixfold.split.trace`). What such a run cannot see is looked for: attributes that the forward
changes, random numbers that it draws, values that it changes in place while others still use them,
results that it throws away. Then the module is left to autograd. What even so escapes (a decision
by `isinstance`, `torch.no_grad` around a part) is found when the graph is first used: see
`sixfold.step.proof`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from sixfold.native.max_pool import MaxPoolReLU2d
from sixfold.split.trace import Call, Tracer, calls_of, first_line, result_of
from sixfold.step.functions import (
    ADDS,
    CONCATENATIONS,
    Applied,
    as_layers,
    call_inputs,
    is_plain,
    makes_anew,
    works_in_place,
)
from sixfold.step.rewrites import fused_in_line, has_hooks
from sixfold.step.untouched import CannotFollowError, training, untouched

LAYERS, SUM, CONCATENATION, PLAIN, OTHER = "layers", "sum", "concatenation", "plain", "other"
"""What a stage is: layers in line, a sum or a concatenation of values, a size, any other call."""


@dataclass(kw_only=True)
class Stage:
    """A part of a graph that gives one value.

    Attributes:
        kind: one of the above.
        layers: in line; for `PLAIN` and `OTHER` the one module that makes the call.
        inputs: numbers of values: 0 is what the graph is given, k the result of its k-th stage.
        names: of every layer, or of the call: what it was in the forward, below the module.
        dim: of a concatenation.
        relu: whether a ReLU follows a sum, as part of it.
    """

    kind: str
    layers: list[nn.Module]
    inputs: list[int]
    names: list[tuple[str, ...]]
    dim: int = 0
    relu: bool = False

    @property
    def title(self) -> str:
        """What a stage that is no layers does, in a word: the function's name."""
        return self.names[0][0].rpartition(".")[2].partition("#")[0]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A module as stages, each of which takes values of stages before it.

    Attributes:
        module: what was read.
        stages: in order of execution.
        output: the number of the value that is returned.
        followed: modules whose forward was followed, with the mode that each was in.
        unused: parameters that no call takes.
        left: parts that could not be followed, by path, and why.
    """

    module: nn.Module
    stages: list[Stage]
    output: int
    followed: list[tuple[nn.Module, bool]]
    unused: list[nn.Parameter]
    left: dict[str, str]

    @property
    def has_its_mode(self) -> bool:
        """Whether the module is in the mode (training or not) in which it was read."""
        return all(module.training == mode for module, mode in self.followed)


def read_graph(module: nn.Module) -> Graph:
    """Read a module as it is while training.

    Raises:
        CannotFollowError: with the reason.
    """
    tracer = _Tracer()
    with training(module), untouched(module):
        try:
            graph = tracer.trace(module)
        except Exception as error:
            raise CannotFollowError(first_line(error)) from error
        entries, output = _entries(module, graph)
        followed = [(part, part.training) for part in [module, *tracer.followed]]
    _check_places(entries, output)
    stages, number = _stages(entries, output)
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
            or is_own_layer(m)
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
            self.left[path] = first_line(error)
            return super().call_module(m, forward, args, kwargs)


def is_own_layer(module: nn.Module) -> bool:
    """Whether a module is a layer of Sixfold's, and none of its networks."""
    home = type(module).__module__
    return home.startswith("sixfold.") and not home.startswith("sixfold.models.")


@dataclass
class _Entry:
    """A call, and what it becomes."""

    node: fx.Node
    kind: str
    layers: list[nn.Module]
    inputs: list[fx.Node]
    name: str
    in_place: bool = False
    anew: bool = False
    dim: int = 0


def _entries(module: nn.Module, graph: fx.Graph) -> tuple[list[_Entry], fx.Node]:
    """What is needed for the result, in order."""
    output = result_of(graph)
    if not isinstance(output, fx.Node):
        raise CannotFollowError("it does not return one tensor")
    sources = [node for node in graph.nodes if node.op == "placeholder"]
    if any(node.users for node in sources[1:]):
        raise CannotFollowError("it takes more than one argument")
    plain: set[fx.Node] = set()
    names = _Names()
    entries = [
        _entry(call, module, plain, names)
        for call in calls_of(module, graph, {})
        if call.node.op != "get_attr"
    ]
    needed = {output}
    kept = []
    for entry in reversed(entries):
        if entry.node in needed:
            needed.update(entry.inputs)
            kept.append(entry)
        elif entry.kind != PLAIN:
            raise CannotFollowError(f"it does not use what it computes ({entry.name})")
    if output in plain or output.op in ("get_attr", "placeholder"):
        raise CannotFollowError("it does not compute anything")
    return kept[::-1], output


def _entry(call: Call, module: nn.Module, plain: set[fx.Node], names: _Names) -> _Entry:
    inputs = call_inputs(call)
    name = names.of(call)
    in_place = works_in_place(call)
    if is_plain(call, plain):
        plain.add(call.node)
        return _Entry(call.node, PLAIN, [Applied(call, module, inputs)], inputs, name)
    if in_place and not (call.arguments and call.arguments[0] in inputs):
        raise CannotFollowError(f"it changes a parameter or a buffer in place ({name})")
    values = [argument for argument in call.arguments if argument in inputs]
    if (
        not isinstance(call.called, nn.Module)
        and not call.named
        and len(values) == 2 == len(call.arguments)
        and call.called in ADDS
        and not plain.intersection(values)
    ):
        return _Entry(call.node, SUM, [], values, name, in_place)
    joined = _concatenated(call, inputs)
    if joined is not None:
        return _Entry(call.node, CONCATENATION, [], joined[0], name, dim=joined[1])
    if len(plain.union(inputs)) == len(plain) + 1:
        layers = as_layers(call, module, plain)
        if not any(isinstance(layer, Applied) for layer in layers) or len(inputs) == 1:
            if in_place and any(isinstance(layer, Applied) for layer in layers):
                raise CannotFollowError(f"it changes a value in place ({name})")
            given = [node for node in inputs if node not in plain]
            return _Entry(call.node, LAYERS, layers, given, name, in_place, makes_anew(call))
    if in_place:
        raise CannotFollowError(f"it changes a value in place ({name})")
    layers = [Applied(call, module, inputs)]
    return _Entry(call.node, OTHER, layers, inputs, name, anew=makes_anew(call))


def _concatenated(call: Call, inputs: list[fx.Node]) -> tuple[list[fx.Node], int] | None:
    if isinstance(call.called, nn.Module) or call.called not in CONCATENATIONS:
        return None
    values = call.arguments[0] if call.arguments else None
    dim = call.named.get("dim", call.arguments[1] if len(call.arguments) > 1 else 0)
    if not isinstance(values, (list, tuple)) or not isinstance(dim, int):
        return None
    return (list(values), dim) if all(value in inputs for value in values) else None


class _Names:
    """Names of calls: a layer's path, or the path of the calling module and the function."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def of(self, call: Call) -> str:
        name = call.name
        if not isinstance(call.called, nn.Module):
            name = ".".join(part for part in (call.within, call.kind.strip("_")) if part)
        number = self._seen[name] = self._seen.get(name, 0) + 1
        return name if number == 1 else f"{name}#{number}"


_FRESH = tuple(
    f"torch.nn.modules.{name}"
    for name in ("conv", "linear", "batchnorm", "pooling", "normalization", "activation")
)


def _check_places(entries: list[_Entry], output: fx.Node) -> None:
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


def _is_fresh(entry: _Entry) -> bool:
    """Whether a result is in memory of its own."""
    if entry.anew or entry.kind in (SUM, CONCATENATION):
        return True
    last = entry.layers[-1] if entry.layers else None
    return isinstance(last, MaxPoolReLU2d) or type(last).__module__.startswith(_FRESH)


def _stages(entries: list[_Entry], output: fx.Node) -> tuple[list[Stage], int]:
    """Entries put together: layers of which each takes the one before, and nobody else does."""
    users: dict[fx.Node, int] = {output: 1}
    for entry in entries:
        for node in entry.inputs:
            users[node] = users.get(node, 0) + 1
    numbers: dict[fx.Node, int] = {}
    stages: list[Stage] = []
    before: fx.Node | None = None
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


def _takes_relu(stage: Stage, entry: _Entry) -> bool:
    plain_relu = [type(layer) for layer in entry.layers] == [nn.ReLU]
    return stage.kind == SUM and not stage.relu and plain_relu and not has_hooks(entry.layers[0])


def _unused(module: nn.Module, stages: list[Stage]) -> list[nn.Parameter]:
    """Parameters that no stage has.

    Raises:
        CannotFollowError: if two calls have the same.
    """
    taken: set[int] = set()
    for stage in stages:
        for layer in stage.layers:
            own = {id(parameter) for parameter in layer.parameters()}
            if taken & own:
                raise CannotFollowError("it uses weights more than once")
            taken |= own
    return [parameter for parameter in module.parameters() if id(parameter) not in taken]
