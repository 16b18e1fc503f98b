"""What each layer of a network costs, by arithmetic: FLOPs, bytes, parameters, memory it keeps.

The network is run once on the meta device, where tensors have shapes but no values, so this takes
milliseconds and no memory for any network and batch. Every call of a torch function is seen where
it happens, in the layer that makes it, so any module can be read: those of the zoo, a user's own,
and one that decides by shapes. What counts as an operation says `sixfold.models.graph.flops`.

Bytes are the least that a call must move with nothing left in a cache from the call before it:
forward it reads its inputs and weights and writes its output; backward it reads the output's
gradient, what it has kept and, for a product, its weights, and writes the gradients of its inputs
and weights. A view moves nothing. A tensor that several calls take has its gradients added:
one operation an element, two reads and a write, at each call but one.

A function that is not known counts as one that works element by element, plus what torch's own
counter finds in it (products inside), and is named in `LayerCost.unknown`.
"""

import torch
from torch import Tensor, nn

from sixfold.core.errors import UserError
from sixfold.models.shapes import Shape, times
from sixfold.models.user_traceback import one_line
from sixfold.perf.profile.cost import LOSS, FunctionCost, LayerCost
from sixfold.perf.profile.recorder import Recorder, storage_of
from sixfold.perf.profile.scopes import followed
from sixfold.training.layers.operations import NO_VIEW

__all__ = ["FunctionCost", "LayerCost", "layer_costs", "total"]


def layer_costs(
    network: nn.Module,
    shape: Shape,
    samples: int,
    *,
    dtype: torch.dtype = torch.float32,
    loss: bool = True,
) -> tuple[LayerCost, ...]:
    """The cost of every layer, in order of execution, for one pass over a batch in training.

    The network is left as it was; give it the rewrites of `sixfold.training.layers.rewrites` first
    to see it as training runs it. `shape` is (C, H, W); training computes a logical shard of
    `samples` at a time; `loss` adds cross-entropy as the last layer. A `UserError` if it cannot be
    run on such a batch.

    >>> costs = layer_costs(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (3, 6, 6), 1, loss=False)
    >>> [(cost.name, cost.forward_flops, cost.backward_flops) for cost in costs]
    [('0', 6912, 6912), ('1', 128, 128)]
    """
    # On the CPU: forwards that look at values, or hold tensors that are no parameters or buffers.
    for device in ("meta", "cpu"):
        for last in (True, False):
            try:
                return _record(network, shape, samples, dtype, loss, device, last=last)
            except Exception as error:
                found = error
                if NO_VIEW not in str(error):
                    break
    raise UserError(
        f"the network cannot be run on {samples} images of {times(shape)}: {one_line(found)}"
    ) from found


def total(costs: tuple[LayerCost, ...], what: str) -> int:
    """Sum of one property over layers, such as `total(costs, "flops")`."""
    return sum(int(getattr(cost, what)) for cost in costs)


def _record(
    network: nn.Module,
    shape: Shape,
    samples: int,
    dtype: torch.dtype,
    loss: bool,
    device: str,
    *,
    last: bool,
) -> tuple[LayerCost, ...]:
    """Run the network on images laid out N H W C (`last`) or N C H W, and look on."""
    tensors = {
        **{name: _empty_like(p, dtype, device) for name, p in network.named_parameters()},
        **{name: _empty_like(b, dtype, device) for name, b in network.named_buffers()},
    }
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    for name in trainable:
        tensors[name].requires_grad_()
    images = torch.zeros((samples, *shape), dtype=dtype, device=device)
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    own = {storage_of(tensor) for tensor in tensors.values()}
    recorder = Recorder({id(tensors[name]) for name in trainable}, own, device, last=last)
    was_training = [(module, module.training) for module in network.modules()]
    network.train()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
            followed(network, lambda: recorder.scopes),
        ):
            with torch.device(device), recorder:
                logits = torch.func.functional_call(network, tensors, (images,))
            if loss and isinstance(logits, Tensor) and logits.dim() == 2:
                labels = torch.zeros(len(logits), dtype=torch.int64, device=device)
                with recorder.scopes.layer(LOSS, "cross-entropy"), recorder:
                    nn.functional.cross_entropy(logits, labels, reduction="sum")
    finally:
        for module, mode in was_training:
            module.training = mode
    return recorder.finished()


def _empty_like(tensor: Tensor, dtype: torch.dtype, device: str) -> Tensor:
    """A stand-in for a parameter or buffer; its values, if there are any, are ones."""
    wanted = dtype if tensor.is_floating_point() else tensor.dtype
    return torch.ones(tensor.shape, dtype=wanted, device=device)
