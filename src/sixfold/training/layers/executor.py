"""A network as a sequence of layer operations, run forward and backward without autograd's graph.

autograd records every operation, allocates every gradient, and copies it to where it is wanted:
for a few images that costs more than the arithmetic. Most networks are a plain sequence, whose
backward pass is the same sequence the other way round. Here each layer is an operation (`LayerOp`)
that calls the same kernels of torch directly and writes its weights' gradients into the payload. A
module with a forward of its own is a graph of such operations
(`sixfold.training.layers.user_forward`). Whatever is no such layer, or cannot be followed, becomes
an operation that asks autograd.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sixfold.models.graph.operations import operation_of
from sixfold.training.layers.blocks import Branches, Layers, modules_of, read
from sixfold.training.layers.calls import CONCATENATION, LAYERS, PLAIN, SUM
from sixfold.training.layers.explicit import EXPLICIT, PAIRS, Weights
from sixfold.training.layers.multi_input import (
    AddOp,
    ConcatenateOp,
    MultiInputOp,
    PlainOp,
    SequenceOp,
)
from sixfold.training.layers.operations import LayerOp, Run, SpatialSumOp
from sixfold.training.layers.rewrites import has_hooks
from sixfold.training.layers.tracing import Graph, Stage, StagedNetwork
from sixfold.training.layers.user_forward import AutogradNeed, GraphExecutor, Node
from sixfold.training.layers.verification import refusal_of

Parameters = Sequence[nn.Parameter]


class LayerExecutor:
    """Computes a network's values and the gradients of its weights.

    Args:
        model: the network.
        parameters: its trainable parameters, in the order in which gradients are wanted.
        whole: leave the whole network to autograd.
        copies: of the parameters, of the dtype to compute with (`sixfold.training.step.precision`).

    Attributes:
        links: what is run, in order; `run` is the same as one.
        made: every link, those of branches too, and the layers of which it was made.
        left: parts that are left to autograd because their forward cannot be followed, and why.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Parameters,
        *,
        whole: bool = False,
        copies: Sequence[Tensor] | None = None,
    ) -> None:
        self._model = model
        weights = Weights(parameters, copies)
        self.left: dict[str, str] = {}
        layers: Layers = [model] if whole else read(model, self.left)
        self.made = weights.made
        if not whole and not weights.are_all_once_in(modules_of(layers)):
            self.left = {type(model).__name__: "layers share weights"}
            whole = True
        if whole:
            self.links: list[LayerOp] = [weights.autograd_link(model)]
            self.made.append((self.links[0], [model]))
        else:
            self.links = _link_up(layers, weights)
        self.run = Run(self.links)
        self._autograd_need = AutogradNeed(self.links)

    def autograd_fallback(self) -> list[str]:
        """One line for every part whose forward was not followed, and why; known after a step."""
        paths = {id(module): path for path, module in self._model.named_modules()}
        refused = {
            paths.get(id(link.graph.module), "") or type(link.graph.module).__name__: link.refused
            for link, _ in self.made
            if isinstance(link, GraphExecutor) and link.refused
        }
        return [f"{part}: {why}" for part, why in (self.left | refused).items()]

    @property
    def needs_autograd(self) -> bool:
        """Whether there is a module of which only autograd knows what it does."""
        return bool(self._autograd_need)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        """The output for images (n, C, H, W), in the current mode, and what `backward` needs."""
        with torch.no_grad():
            return self.run.forward(x, False)

    def backward(self, saved: list[Any], grad: Tensor, out: Sequence[Tensor]) -> None:
        """Write every parameter's gradient to `out`; zeros where it has no influence.

        `saved` is from `forward` and consumed; `grad` is with respect to the output.
        """
        with torch.no_grad():
            self.run.backward(saved, grad, out, False)


def _link_up(layers: Layers, weights: Weights) -> list[LayerOp]:
    """Links for layers: their own, or one for all that stand together and have none."""
    links: list[LayerOp] = []
    others: list[nn.Module] = []

    def close() -> None:
        if others:
            module = others[0] if len(others) == 1 else nn.Sequential(*others)
            links.append(weights.autograd_link(module))
            weights.made.append((links[-1], list(others)))
            others.clear()

    place = 0
    while place < len(layers):
        layer = layers[place]
        behind = layers[place + 1] if place + 1 < len(layers) else None
        link, taken = _next_link(layer, behind, weights)
        place += taken
        if link is None:
            assert isinstance(layer, nn.Module)
            others.append(layer)
        else:
            close()
            links.append(link)
            weights.made.append((link, layers[place - taken : place]))
    close()
    return links


def _next_link(
    layer: nn.Module | Branches | Graph,
    behind: nn.Module | Branches | Graph | None,
    weights: Weights,
) -> tuple[LayerOp | None, int]:
    """The link of a layer, if it has one, and how many layers that takes up."""
    if isinstance(layer, Branches):
        left, right = (Run(_link_up(side, weights)) for side in (layer.left, layer.right))
        return SpatialSumOp((left, right), relu=layer.relu), 1
    if isinstance(layer, Graph):
        return _graph(layer, weights), 1
    if type(layer) in PAIRS and not has_hooks(layer):
        is_plain = isinstance(behind, nn.Module) and not has_hooks(behind)
        return PAIRS[type(layer)](layer, cast(nn.Module, behind) if is_plain else None, weights)
    return _own_link(layer, weights), 1


def _graph(graph: Graph, weights: Weights) -> LayerOp:
    parameters = [p for _, p in weights.owned(graph.module)]

    def prove(like: Tensor) -> str | None:
        # In full precision: bfloat16 would hide what is compared.
        own = Weights(parameters, None)
        link = GraphExecutor(graph, _nodes(graph, own), _unused(graph, own), otherwise, _proved)
        return refusal_of(graph.module, link, parameters, like)

    otherwise = weights.autograd_link(graph.module)
    is_known = isinstance(graph.module, StagedNetwork)
    return GraphExecutor(
        graph,
        _nodes(graph, weights),
        _unused(graph, weights),
        otherwise,
        _proved if is_known else prove,
    )


def _proved(_: Tensor) -> None:
    """Nothing speaks against a graph that is being tried out, or was made and not read."""


def _unused(graph: Graph, weights: Weights) -> list[int]:
    return [place for place, _ in weights.owned(nn.ParameterList(graph.unused))]


def _nodes(graph: Graph, weights: Weights) -> list[Node]:
    """The stages of a graph with links in them."""
    return [
        Node(
            join=_join(stage, weights),
            inputs=stage.inputs,
            places=[place for layer in stage.layers for place, _ in weights.owned(layer)],
        )
        for stage in graph.stages
    ]


def _join(stage: Stage, weights: Weights) -> MultiInputOp:
    if stage.kind == SUM:
        return AddOp(relu=stage.relu)
    if stage.kind == CONCATENATION:
        return ConcatenateOp(stage.dim)
    if stage.kind == LAYERS:
        return SequenceOp(Run(_link_up(list(stage.layers), weights)))
    if stage.kind == PLAIN:
        return PlainOp(stage.layers[0])
    return weights.autograd_join(stage.layers[0])


def _can_be_linked(layer: nn.Module, weights: Weights) -> bool:
    """Whether nobody watches a layer's calls, and none of its weights is frozen."""
    return not has_hooks(layer) and weights.all_trained(layer)


def _own_link(leaf: nn.Module, weights: Weights) -> LayerOp | None:
    """A layer's own link; None if it has none, or some of its weights are frozen."""
    row = operation_of(leaf)
    make = None if row is None else EXPLICIT.get(row)
    if make is None or not _can_be_linked(leaf, weights):
        return None
    return make(leaf, weights)
