"""Batch normalisation of divided maps, with the statistics of the whole.

Channels are held by one rank each, so dividing them changes nothing. Along rows and columns every
rank has number, mean and squared differences of its own values; these of all ranks are gathered and
put together in the order of the ranks (Chan, Golub and LeVeque, "Algorithms for computing the
sample variance", 1983), which gives the statistics of the undivided maps in one exchange:

    N = sum of N_r      mean = sum of N_r mean_r / N      M = sum of M_r + N_r (mean_r - mean)^2

Where statistics are the whole batch's, the shards' are put together in the same way, by two sums.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sixfold.core.errors import UnsupportedError
from sixfold.distributed.collectives import all_gather
from sixfold.distributed.process_group import Communicator
from sixfold.training.layers.explicit import PAIRS, Made, Weights
from sixfold.training.layers.norm import ACTIVATIONS, move_on
from sixfold.training.layers.operations import AutogradOp
from sixfold.training.native import norm as native
from sixfold.training.step.frozen import keep_statistics, keeps_statistics
from sixfold.training.strategies.model_parallel.layout import Layout
from sixfold.training.strategies.model_parallel.local import LocalLayer
from sixfold.training.strategies.model_parallel.part import Part, undivided
from sixfold.training.strategies.model_parallel.value import Context, Divided, Shape, Value

Array = NDArray[Any]
BatchSum = Callable[[Tensor], Tensor]


class OtherRows:
    """Statistics over the ranks that hold rows of the same channels, and over a batch's shards.

    Args:
        group: these ranks; None if there are none.
        batch_sum: adds over all logical shards of a step; None if each has its own statistics.
    """

    def __init__(self, group: Communicator | None, batch_sum: BatchSum | None) -> None:
        self._group, self._batch_sum = group, batch_sum

    def statistics(self, rows: int, mean: Array, squares: Array) -> tuple[int, Array, Array]:
        found = np.concatenate([[float(rows)], mean, squares])
        held = [found] if self._group is None else all_gather(self._group, found)
        counts = np.array([part[0] for part in held])[:, None]
        means, inner = np.split(np.stack(held)[:, 1:], 2, axis=1)
        count, total = counts.sum(), (counts * means).sum(0)
        if self._batch_sum is None:
            count = max(count, 1.0)  # in a canary a rank without rows is its own peers
            mean = total / count
            return int(count), mean, (inner + counts * (means - mean) ** 2).sum(0)
        whole = self._batch_sum(torch.from_numpy(np.append(total, count))).numpy()
        mean = whole[:-1] / max(whole[-1], 1.0)
        own = (inner + counts * (means - mean) ** 2).sum(0)
        return max(int(whole[-1]), 1), mean, self._batch_sum(torch.from_numpy(own)).numpy()

    def sums(self, values: Array) -> Array:
        if self._group is not None:
            values = np.stack(all_gather(self._group, values)).sum(0)
        if self._batch_sum is None:
            return values
        return self._batch_sum(torch.from_numpy(values)).numpy()


class LocalNorm(LocalLayer):
    """A rank's part of a batch-norm.

    Args:
        rank: of the group.
        norm: the undivided one.
        layout: of input and output.
        group: the ranks that hold parts of the same channels; None if there are none.
        together: whether each channel of the layout is a feature map, rather than each element.

    Attributes:
        batch_sum: adds over all logical shards of a step, where statistics are the batch's.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        rank: int,
        norm: _BatchNorm,
        layout: Layout,
        group: Communicator | None,
        *,
        together: bool,
    ) -> None:
        super().__init__(rank)
        self._group, self._together = group, together
        self.eps, self.momentum = norm.eps, norm.momentum
        splits = layout.splits[:1] if together else layout.splits
        summed = layout.spatial if together else frozenset()
        part = Part((norm.num_features,), Layout(layout.mesh, splits), summed)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.hold(name, getattr(norm, name), part)
        counter = undivided(layout.mesh, ())
        self.hold("num_batches_tracked", norm.num_batches_tracked, counter)
        self.batch_sum: BatchSum | None = None

    @property
    def computes_statistics(self) -> bool:
        """Whether it normalises by what it is given, and not by running statistics."""
        return self.training or self.running_mean is None

    def reduction(self) -> OtherRows | None:
        """Where the other rows of its channels are."""
        # An evaluation has no other shards; a norm without running statistics comes here then too.
        batch_sum = self.batch_sum if self.training else None
        if self._group is None and batch_sum is None:
            return None
        return OtherRows(self._group, batch_sum)

    def rows_of(self, x: Tensor) -> Tensor:
        """(n, *own) -> (R, C, 1, 1), a row for each value of a channel."""
        rows = x.permute(0, 2, 3, 1).flatten(0, 2) if self._together else x.flatten(1)
        return rows.contiguous()[:, :, None, None]

    def maps_of(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """(R, C, 1, 1) -> (n, *own)."""
        if not self._together:
            return rows.reshape(shape)
        images, channels, height, width = shape
        return rows.reshape(images, height, width, channels).permute(0, 3, 1, 2)

    def normalised(self, x: Tensor, act: int) -> tuple[Tensor, native.Saved]:
        """Normalise (n, *own) by the statistics of the whole, and apply what stands behind."""
        rows = self.rows_of(x)
        kind = np.float64 if rows.dtype == torch.float64 else np.float32
        ones, zeros = np.ones(rows.shape[1], kind), np.zeros(rows.shape[1], kind)
        weight = ones if self.weight is None else self.weight.detach().numpy()
        bias = zeros if self.bias is None else self.bias.detach().numpy()
        reduction = self.reduction()
        if reduction is None and not x.numel():
            found = native.Statistics(zeros, ones, 1)
            y, saved = rows, native.Saved(rows, zeros, ones, ones, zeros, act, 1)
        else:
            y, saved, found = native.forward(rows, weight, bias, self.eps, act, reduction)
        if self.training and self.running_mean is not None:
            move_on(self, found)
        return self.maps_of(y, x.shape), saved

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, *own)."""
        if self.computes_statistics:
            return self.normalised(x, native.NONE)[0]
        if x.numel() == 0:
            return x
        y = functional.batch_norm(
            x if self._together else x.reshape(len(x), -1),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            eps=self.eps,
        )
        return y.reshape(x.shape)


class LocalNormOp:
    """`LocalNorm` and the activation behind it.

    Args:
        layer: the norm.
        places: of the gradients of weight and bias; None of what is not trained.
        behind: the activation, if there is one.
        otherwise: does the work where the layer computes with running statistics.
    """

    def __init__(
        self,
        layer: LocalNorm,
        places: tuple[int | None, int | None],
        behind: nn.Module | None,
        otherwise: AutogradOp,
    ) -> None:
        self._layer, self._places, self._otherwise = layer, places, otherwise
        self._act = native.NONE if behind is None else ACTIVATIONS[type(behind)]
        self.has_weights = otherwise.has_weights

    def forward(self, x: Tensor, wanted: bool) -> tuple[Tensor, Any]:
        """(n, *own), the same shape."""
        if not self._layer.computes_statistics:
            return self._otherwise.forward(x, wanted)
        return self._layer.normalised(x, self._act)

    def backward(self, saved: Any, grad: Tensor, out: Sequence[Tensor]) -> Tensor | None:
        """(n, *own), the same shape."""
        if not isinstance(saved, native.Saved):
            return self._otherwise.backward(saved, grad, out)
        layer, reduction = self._layer, self._layer.reduction()
        rows = layer.rows_of(grad)
        if reduction is None and not grad.numel():
            dx, dw, db = rows, np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
        else:
            dx, dw, db = native.backward(saved, rows, reduction)
        for place, gradient in zip(self._places, (dw, db), strict=True):
            if place is not None:
                out[place].copy_(torch.from_numpy(gradient))
        return layer.maps_of(dx, grad.shape)


def _explicit(layer: LocalNorm, behind: nn.Module | None, weights: Weights) -> Made:
    behind = behind if type(behind) in ACTIVATIONS else None
    places = dict.fromkeys(("weight", "bias"), None) | {
        name: weights.place(parameter)
        for name, parameter in layer.named_parameters()
        if parameter.requires_grad
    }
    module = layer if behind is None else nn.Sequential(layer, behind)
    own = places["weight"], places["bias"]
    op = LocalNormOp(layer, own, behind, weights.autograd_link(module))
    return op, 1 if behind is None else 2


PAIRS[LocalNorm] = _explicit


def divide_norm(context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape) -> Divided:
    """Divide a batch-norm, of maps or of features."""
    del out
    assert isinstance(layer, _BatchNorm)
    (value,) = inputs
    layout = value.layout
    together = not value.flat or value.shape[1:] == (1, 1)
    if layer.num_features != (value.shape[0] if together else torch.Size(value.shape).numel()):
        raise UnsupportedError("it does not normalise channels: give it (n, C, H, W) or (n, F)")
    group = context.subgroup(layout.spatial) if together else None
    norm = LocalNorm(context.rank, layer, layout, group, together=together)
    if keeps_statistics(layer):
        keep_statistics(norm)
    return Divided(layout, [context.gather_as(value, layout)], [norm], norm)
