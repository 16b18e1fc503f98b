"""What a training begins with: weights from a file, and a mask or clusters that it keeps to.

The state of the update rule starts fresh, whatever the file holds: velocities and moments that
were built up without the mask would carry removed weights along.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sixfold.core import tensor_file
from sixfold.core.errors import UserError
from sixfold.models.pretrained import COUNTER, from_torchvision
from sixfold.training import torch_file
from sixfold.training.checkpoint import WEIGHTS, refuse_swapped
from sixfold.training.config import InitializationConfig
from sixfold.training.sparsity.masked import MaskedUpdate, mask_vector, zero_masked
from sixfold.training.sparsity.masks import load_mask
from sixfold.training.sparsity.shared import (
    SharedUpdate,
    check_shared,
    cluster_vector,
    load_clusters,
)
from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer


def begin(config: InitializationConfig, state: FlatState, rule: Optimizer) -> Optimizer:
    """Remove what the mask removes of the given weights, and see that it stays removed.

    `state` is changed in place, `rule` is an update rule with fresh state; the one to be used is
    returned. A `UserError` if a file cannot be read or does not fit the network.
    """
    if config.mask is not None:
        try:
            vector = mask_vector(load_mask(Path(config.mask)), state)
        except ValueError as error:
            raise UserError(f"--mask {config.mask} does not fit the network: {error}") from None
        zero_masked(state, vector)
        rule = MaskedUpdate(rule, vector)
    if config.shared is not None:
        try:
            clusters = load_clusters(Path(config.shared))
            vector = cluster_vector(clusters, state)
            check_shared(state, clusters)
        except ValueError as error:
            raise UserError(f"--shared {config.shared} does not fit the network: {error}") from None
        rule = SharedUpdate(rule, vector)
    return rule


def read_weights(path: Path, tell: Callable[[str], None] | None = None) -> dict[str, Tensor]:
    """A network's state by name, from a run, a weights file, a checkpoint or a PyTorch file.

    `tell` is told what is done to names; a `UserError` if there is none.
    """
    inside = path / WEIGHTS
    file = inside if inside.is_file() else path
    kind = torch_file.kind_of(file)
    if kind == torch_file.TORCH:
        state, done = torch_file.load_state(file)
        if done and tell is not None:
            tell(f"--weights {file}: {', '.join(done)}")
        return state
    try:
        with tensor_file.open_tensors(file) as opened:
            names = list(opened.keys())
            # A checkpoint holds the update rule's state besides, each under a prefix.
            if "progress" in (opened.metadata() or {}):
                prefix = "model."
                names = [name for name in names if name.startswith(prefix)]
                return {name.removeprefix(prefix): opened.get_tensor(name) for name in names}
            tensors = {name: opened.get_tensor(name) for name in names}
            refuse_swapped(file, tensors)
            return tensors
    except (SafetensorError, OSError) as error:
        said = f"it is {kind}" if kind else str(error)
        raise UserError(
            f"{file}: no weights can be read from it: {said}: expected a run directory, a "
            "safetensors file, or a state dict that torch.save wrote"
        ) from error


def put_weights(
    weights: Mapping[str, Tensor],
    network: nn.Module,
    where: str,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Copy weights and buffers, by name, into a network; see `fitting_weights`."""
    own = network.state_dict()
    with torch.no_grad():
        for name, tensor in fitting_weights(weights, network, where, tell).items():
            own[name].copy_(tensor)


def fitting_weights(
    weights: Mapping[str, Tensor],
    network: nn.Module,
    where: str,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Tensor]:
    """What a network begins with of given weights and buffers, by its own names.

    A head for another number of classes stays as it was initialised, and torchvision's names of the
    zoo's networks are understood; `tell` is told of both. A `UserError` if names or shapes are not
    the network's.
    """
    own = network.state_dict()
    told = []
    if renamed := {} if own.keys() <= weights.keys() else from_torchvision(weights, own):
        weights = {renamed[name]: tensor for name, tensor in weights.items()}
        told.append("torchvision's names stand for those of the network's layers")
    needed = {n: t for n, t in own.items() if n in weights or not n.endswith(COUNTER)}
    if head := _other_head(weights, network):
        had, has = (tensors[f"{head}.weight"].shape[0] for tensors in (weights, own))
        told.append(f"its head {head} has {had} outputs, here {has}: it is initialised afresh")
        needed = {n: t for n, t in needed.items() if n.rpartition(".")[0] != head}
    wrong = [
        f"{name} {tuple(tensor.shape)}, has {_shape(weights.get(name))}"
        for name, tensor in needed.items()
        if name not in weights
        or weights[name].shape != tensor.shape
        or weights[name].is_floating_point() != tensor.is_floating_point()
    ]
    wrong += [f"no {name}, has one" for name in weights.keys() - own.keys()]
    if wrong:
        more = f" (and {len(wrong) - _MOST_TOLD} more)" if len(wrong) > _MOST_TOLD else ""
        raise UserError(
            f"--weights {where} does not fit the network: it needs "
            + "; ".join(wrong[:_MOST_TOLD])
            + more
        )
    if told and tell is not None:
        tell(f"--weights {where}: {'; '.join(told)}")
    return {name: weights[name] for name in needed}


_MOST_TOLD = 5


def _other_head(weights: Mapping[str, Tensor], network: nn.Module) -> str:
    """The network's last linear layer, if that of the weights differs in its outputs alone."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not layers or not layers[-1][0]:
        return ""
    name, layer = layers[-1]
    pairs = [(own, weights.get(f"{name}.{part}")) for part, own in layer.named_parameters()]
    fits = all(theirs is not None and theirs.shape[1:] == own.shape[1:] for own, theirs in pairs)
    outputs = {theirs.shape[0] for _, theirs in pairs if theirs is not None and theirs.dim()}
    return name if fits and len(outputs) == 1 and outputs != {layer.out_features} else ""


def _shape(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    kind = "" if tensor.is_floating_point() else f" of {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"
