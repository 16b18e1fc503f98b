"""A training step in two halves: forward keeps what backward needs, as named tensors.

What is kept is what layers with an explicit backward keep (`sixfold.training.layers.operations`):
of the slide network the images, in the layout in which they are computed with; of the max-pool
where each maximum was, and whether ReLU let it pass; the input of the linear layer; and the loss's
gradient. Both halves call the kernels that a step calls, so the gradient has the bits of
`sixfold.training.step.step.Step`.

The tensors are what is large. In which structure a layer keeps them is its own affair: the *frame*,
the same structure with names in the place of tensors, is small and travels with them.
"""

import functools
import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.core.errors import RunError
from sixfold.distributed.logical_shards import shard_count
from sixfold.studies.convolution.geometry import Array
from sixfold.studies.lab.long_lived import network, shard_of
from sixfold.studies.lab.problem import Problem
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.layers.operations import MaxPoolOp, Run
from sixfold.training.losses.cross_entropy import cross_entropy
from sixfold.training.native.max_pool import MaxPoolReLU2d
from sixfold.training.step.step import Shard, Step, channels_last

Tensors = dict[str, Tensor]  # activations of a shard, by name
Frame = bytes  # what every layer has kept, pickled with a name in the place of each tensor


class Halves:
    """The network of a problem, run forward and backward at different times."""

    def __init__(self, problem: Problem) -> None:
        torch.manual_seed(problem.seed)
        model = network(problem.geometry).to(getattr(torch, problem.dtype))
        self.problem = problem
        self.step = Step(model, seed=problem.seed)  # the same network as training has it
        self.count = shard_count(problem.geometry.batch)  # logical shards of the whole batch
        links = LayerExecutor(self.step.model, self.step.state.trainable).links
        pool = next(m for m in self.step.model.modules() if isinstance(m, MaxPoolReLU2d))
        # The own link asks autograd where the C kernel is missing, which cannot be sent on.
        self._run = Run([_Pool(pool) if isinstance(link, MaxPoolOp) else link for link in links])

    @property
    def weights(self) -> Array:
        """(P,): the parameters, to be sent; see `sixfold.training.step.flat`."""
        vector: Array = self.step.state.parameters.numpy()
        return vector

    def load(self, weights: Array) -> None:
        """Take over parameters that were sent."""
        self.step.state.parameters.copy_(torch.from_numpy(weights))

    def shard(self, index: int) -> Shard:
        """The samples of a logical shard."""
        return shard_of(self.problem, self.count, index)

    def forward(self, shard: Shard) -> tuple[Tensors, Frame]:
        """Forward and loss; what backward needs."""
        self.step.model.train()
        with torch.no_grad():
            logits, saved = self._run.forward(channels_last(shard.images), False)
        _, grad = cross_entropy(logits, shard.labels)
        tensors: Tensors = {"grad": grad}
        frame = io.BytesIO()
        _TakeOut(frame, tensors).dump(saved)
        return tensors, frame.getvalue()

    def backward(self, tensors: Tensors, frame: Frame) -> Array:
        """(P,) gradient of the sum of the losses of a shard."""
        out = self.step.new_payload()
        saved = _PutBack(frame, tensors).load()
        with torch.no_grad():
            gradients = self.step.state.parts(out).gradients
            self._run.backward(saved, tensors["grad"], gradients, False)
        gradient: Array = self.step.state.split(out)[0].numpy()
        return gradient


@functools.lru_cache(maxsize=2)
def halves_of(problem: Problem) -> Halves:
    """The network of a problem, built once in a process."""
    return Halves(problem)


class _Pool:
    """Max-pool with ReLU behind it whose places are a tensor, with or without the C kernel."""

    has_weights = False

    def __init__(self, layer: MaxPoolReLU2d) -> None:
        self._layer = layer

    def forward(self, x: Tensor, _: bool) -> tuple[Tensor, Any]:
        """(n, C, H, W) -> (n, C, H', W')."""
        layer = self._layer
        y, places = nn.functional.max_pool2d(
            x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, return_indices=True
        )
        y = y.relu() if layer.relu else y
        return y, (x.shape, places.int(), y > 0 if layer.relu else None)

    def backward(self, saved: Any, grad: Tensor, _: Sequence[Tensor]) -> Tensor | None:
        """(n, C, H', W') -> (n, C, H, W)."""
        shape, places, passed = saved
        layer = self._layer
        if passed is not None:
            grad = grad * passed
        like = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last)
        settings = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        pairs = [[s, s] if isinstance(s, int) else list(s) for s in settings]
        back: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            grad.contiguous(memory_format=torch.channels_last), like, *pairs, False, places.long()
        )
        return back


class _TakeOut(pickle.Pickler):
    """Pickles a structure with names for its tensors, which are added to `tensors`."""

    def __init__(self, file: io.BytesIO, tensors: Tensors) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._tensors = tensors

    def persistent_id(self, value: Any) -> str | None:
        if not isinstance(value, Tensor):
            return None
        if value.requires_grad:
            raise RunError("a layer keeps a graph of autograd, which only its own process can use")
        name = f"t{len(self._tensors)}"
        self._tensors[name] = _dense(value.detach())
        return name


class _PutBack(pickle.Unpickler):
    def __init__(self, frame: Frame, tensors: Tensors) -> None:
        super().__init__(io.BytesIO(frame))
        self._tensors = tensors

    def persistent_load(self, name: Any) -> Tensor:
        return _laid_out(self._tensors[name])


def _dense(tensor: Tensor) -> Tensor:
    """Its numbers in the order N H W C, in which they lie."""
    return (tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor).contiguous()


def _laid_out(tensor: Tensor) -> Tensor:
    """The same as N C H W, in the same layout."""
    return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 else tensor
