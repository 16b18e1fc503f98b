"""The calls of a forward, and what each becomes in a graph of links."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from sixfold.models.graph.operations import operation_of
from sixfold.models.graph.table import ADD, CAT
from sixfold.models.graph.trace import Call, calls_of, result_of
from sixfold.training.layers.functions import (
    Applied,
    Picked,
    as_layers,
    call_inputs,
    is_plain,
    makes_anew,
    out_of_place,
    works_in_place,
)
from sixfold.training.layers.side_effects import CannotFollowError

LAYERS, SUM, CONCATENATION, PLAIN, OTHER = "layers", "sum", "concatenation", "plain", "other"
"""What a stage is: layers in line, a sum or a concatenation of values, a size, any other call."""


@dataclass
class Entry:
    """A call, and what it becomes."""

    node: Any  # its result, or a name of it
    kind: str  # one of the above
    layers: list[nn.Module]  # in line; for `PLAIN` and `OTHER` the one module that makes the call
    inputs: list[Any]  # the results of other calls that it takes
    name: str  # of the layer, or of the calling module and the function
    in_place: bool = False  # whether the forward changes the first input by it. A graph never does
    anew: bool = False  # whether the result is known to lie in memory of its own
    dim: int = 0  # of a concatenation


def entries_of(module: nn.Module, graph: fx.Graph) -> tuple[list[Entry], fx.Node]:
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
    if output in plain or output.op in ("get_attr", "placeholder"):
        raise CannotFollowError("it does not compute anything")
    needed = {output}
    kept: list[Entry] = []
    for entry in reversed(entries):
        if entry.node in needed:
            needed.update(entry.inputs)
            kept.append(entry)
        elif entry.kind != PLAIN and entry.node.target is not operator.getitem:
            raise CannotFollowError(f"it does not use what it computes ({entry.name})")
    return _picked(kept[::-1], output), output


def _entry(call: Call, module: nn.Module, plain: set[fx.Node], names: _Names) -> Entry:
    inputs = call_inputs(call)
    name = names.of(call)
    in_place = works_in_place(call)
    if is_plain(call, plain):
        plain.add(call.node)
        return Entry(call.node, PLAIN, [Applied(call, module, inputs)], inputs, name)
    if in_place:
        if not (call.arguments and call.arguments[0] in inputs):
            raise CannotFollowError(f"it changes a parameter or a buffer in place ({name})")
        call = out_of_place(call)
    values = [argument for argument in call.arguments if argument in inputs]
    if (
        not isinstance(call.called, nn.Module)
        and not call.named
        and len(values) == 2 == len(call.arguments)
        and operation_of(call.called) is ADD
        and not plain.intersection(values)
    ):
        return Entry(call.node, SUM, [], values, name, in_place)
    joined = _concatenated(call, inputs)
    if joined is not None:
        return Entry(call.node, CONCATENATION, [], joined[0], name, dim=joined[1])
    if len(plain.union(inputs)) == len(plain) + 1:
        layers = as_layers(call, module, plain)
        if not any(isinstance(layer, Applied) for layer in layers) or len(inputs) == 1:
            if works_in_place(call) and any(isinstance(layer, Applied) for layer in layers):
                raise CannotFollowError(f"it changes a value in place ({name})")
            given = [node for node in inputs if node not in plain]
            return Entry(call.node, LAYERS, layers, given, name, in_place, makes_anew(call))
    if works_in_place(call):
        raise CannotFollowError(f"it changes a value in place ({name})")
    layers = [Applied(call, module, inputs)]
    return Entry(call.node, OTHER, layers, inputs, name, in_place, makes_anew(call))


_VIEWS = {torch.chunk, torch.split, torch.unbind, torch.tensor_split, "chunk", "split", "unbind"}
"""Several views of one tensor: made again for each that is picked, since that costs nothing."""


def _picked(entries: list[Entry], output: fx.Node) -> list[Entry]:
    """Calls of which single results are picked, such as `a, b = x.chunk(2, 1)`, made one each."""
    users: dict[fx.Node, list[Entry]] = {}
    for entry in entries:
        for node in entry.inputs:
            users.setdefault(node, []).append(entry)
    found: list[Entry] = []
    done: set[fx.Node] = set()
    for entry in entries:
        if entry.node in done:
            continue
        picks = users.get(entry.node, []) if _gives_several(entry, output) else []
        once = len(picks) == 1 or entry.node.target in _VIEWS
        if picks and once and all(_is_pick(pick.node) for pick in picks):
            for pick in picks:
                picked = Picked(entry.layers[0], int(pick.node.args[1]))
                found.append(replace(entry, node=pick.node, layers=[picked], anew=False))
            done |= {pick.node for pick in picks}
        else:
            found.append(entry)
    return found


def _gives_several(entry: Entry, output: fx.Node) -> bool:
    is_call = entry.kind in (LAYERS, OTHER) and len(entry.layers) == 1
    if not is_call or entry.node is output:
        return False
    layer = entry.layers[0]
    return isinstance(layer, Applied) or not type(layer).__module__.startswith("torch.nn.modules.")


def _is_pick(node: fx.Node) -> bool:
    return node.target is operator.getitem and isinstance(node.args[1], int)


def _concatenated(call: Call, inputs: list[fx.Node]) -> tuple[list[fx.Node], int] | None:
    if operation_of(call.called) is not CAT:
        return None
    values = call.arguments[0] if call.arguments else None
    dim = call.argument(1, "dim", 0)
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
