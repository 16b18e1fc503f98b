"""A network as a list of calls: which layer gets what, and the shape of everything.

The network is traced symbolically and run once on the meta device, where tensors have shapes but
no values, so a network of any size is read in milliseconds and without memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from sixfold.core.errors import UnsupportedError
from sixfold.models.graph.operations import operation_of
from sixfold.models.graph.table import DROPOUT, DROPOUT_2D

SAMPLES = 3
"""Samples of the run on the meta device; a number that hardly is the size of another dim."""

REMEDY = "divide the batch instead (--strategy sync)"


@dataclass(frozen=True)
class Call:
    """One call in a network."""

    name: str  # of the module, or of the call's result where it is no module
    called: Any  # the module, or the function, or the name of a method
    arguments: tuple[Any, ...]  # as written; other calls' results as `fx.Node`
    named: dict[str, Any]  # arguments by name
    node: fx.Node  # the call's result
    # of the result; None if it is no tensor, or shapes were not asked for
    shape: tuple[int, ...] | None
    within: str = ""  # path of the module whose forward makes the call

    @property
    def kind(self) -> str:
        """What is called, in words."""
        if isinstance(self.called, nn.Module):
            return type(self.called).__name__
        return str(getattr(self.called, "__name__", self.called))

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        return self.named.get(name, (*self.arguments, *[default] * 9)[place])

    def tensors(self) -> list[fx.Node]:
        """Results of other calls among the arguments, in order, those in lists included."""
        return list(_nodes((self.arguments, self.named)))


@dataclass(frozen=True)
class Trace:
    """A network's calls in order."""

    network: nn.Module  # what was traced
    source: fx.Node  # the network's input
    calls: list[Call]  # in order of execution
    output: fx.Node  # the call that gives the network's output


def trace(network: nn.Module, shape: tuple[int, int, int]) -> Trace:
    """Read a network that is on the meta device."""
    network.train()
    try:
        module = fx.GraphModule(network, Tracer().trace(network))
        graph = module.graph
        graph.eliminate_dead_code()
        _refuse_drops_in_evaluation(network, graph)
        recorder = _Recorder(module)
        dtype = next((p.dtype for p in network.parameters()), torch.float32)
        network.eval()  # norms look at values while training
        with torch.no_grad(), torch.device("meta"):
            recorder.run(torch.empty(SAMPLES, *shape, dtype=dtype, device="meta"))
    except UnsupportedError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"the network's forward cannot be followed ({first_line(error)}): write it without "
            f"decisions that depend on values or on the batch, or {REMEDY}"
        ) from error
    sources = [node for node in graph.nodes if node.op == "placeholder"]
    output = result_of(graph)
    if not isinstance(output, fx.Node) or isinstance(output.target, type):  # such as a named tuple
        raise UnsupportedError(f"the network must return one tensor, or {REMEDY}")
    calls = calls_of(network, graph, recorder.shapes)
    return Trace(network=network, source=sources[0], calls=calls, output=output)


_DROPS = (DROPOUT, DROPOUT_2D)


def _refuse_drops_in_evaluation(network: nn.Module, graph: fx.Graph) -> None:
    """Make sure that functions drop while training only: a graph of training shows them all."""
    functions = [node.target for node in graph.nodes if node.op == "call_function"]
    if not any(operation_of(function) in _DROPS for function in functions):
        return
    network.eval()
    for node in Tracer().trace(network).nodes:
        drops = node.op == "call_function" and operation_of(node.target) in _DROPS
        if drops and node.kwargs.get("training", [*node.args, True, True, True][2]):
            raise UnsupportedError(
                f"the call of {node.target.__name__} ('{node.name}') drops in evaluation too: pass "
                "training=self.training"
            )
    network.train()


def calls_of(
    network: nn.Module, graph: fx.Graph, shapes: Mapping[str, tuple[int, ...]]
) -> list[Call]:
    """The calls of a graph of `Tracer`, in order, with shapes of results where they are known."""
    return [
        Call(
            name=str(node.target) if node.op in ("call_module", "get_attr") else node.name,
            called=network.get_submodule(str(node.target))
            if node.op == "call_module"
            else node.op
            if node.op == "get_attr"
            else node.target,
            arguments=node.args,
            named=dict(node.kwargs),
            node=node,
            shape=shapes.get(node.name),
            within=_within(node),
        )
        for node in graph.nodes
        if node.op in ("call_module", "call_function", "call_method", "get_attr")
    ]


def result_of(graph: fx.Graph) -> Any:
    """What a graph returns."""
    return next(node.args[0] for node in graph.nodes if node.op == "output")


def first_line(error: Exception) -> str:
    """An error in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _within(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


class Tracer(fx.Tracer):
    """Looks into the user's own modules, and into no operation that is known, torch's or ours."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one call."""
        known = operation_of(m) is not None or is_own_layer(m)
        return known or super().is_leaf_module(m, module_qualified_name)


def is_own_layer(module: nn.Module) -> bool:
    """Whether a module is a layer of Sixfold's, and none of its networks."""
    home = type(module).__module__
    return home.startswith("sixfold.") and not home.startswith("sixfold.models.")


class _Recorder(fx.Interpreter):
    """Runs a network and keeps the shape of every tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def _nodes(value: Any) -> Iterator[fx.Node]:
    if isinstance(value, fx.Node):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _nodes(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _nodes(item)
