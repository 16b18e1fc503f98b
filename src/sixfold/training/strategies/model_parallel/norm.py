"""Batch normalisation of divided maps, with the statistics of the whole.

Channels are held by one rank each, so dividing them changes nothing. Along rows and columns every
rank has sums over its own part, and the sums of all are added in the order of the ranks: exact
statistics, those of the undivided maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from sixfold.core.errors import UnsupportedError
from sixfold.training.step.frozen import keep_statistics, keeps_statistics
from sixfold.training.strategies.model_parallel.exchange import Fetch, RankSum, nothing
from sixfold.training.strategies.model_parallel.layout import Layout
from sixfold.training.strategies.model_parallel.local import LocalLayer
from sixfold.training.strategies.model_parallel.normalise import advance_running, normalise
from sixfold.training.strategies.model_parallel.part import Part, undivided
from sixfold.training.strategies.model_parallel.value import Context, Shape, Value


class LocalNorm(LocalLayer):
    """A rank's part of a batch-norm.

    Args:
        rank: of the tile.
        norm: the undivided one.
        fetch: brings the input.
        layout: of input and output.
        together: whether each channel of the layout is a feature map, rather than each element.
        rank_sum: adds over the ranks that hold parts of the same channels; None if there are none.

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
        fetch: Fetch,
        layout: Layout,
        rank_sum: RankSum | None,
        *,
        together: bool,
    ) -> None:
        super().__init__(rank)
        self._fetch, self._rank_sum, self._together = fetch, rank_sum, together
        self._eps, self._momentum = norm.eps, norm.momentum
        splits = layout.splits[:1] if together else layout.splits
        summed = layout.spatial if together else frozenset()
        part = Part((norm.num_features,), Layout(layout.mesh, splits), summed)
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.hold(name, getattr(norm, name), part)
        counter = undivided(layout.mesh, ())
        self.hold("num_batches_tracked", norm.num_batches_tracked, counter)
        self.batch_sum: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, *own input)."""
        x = self._fetch(x)
        shape = x.shape
        if not self._together:
            x = x.reshape(len(x), -1, 1, 1)
        y = self._train(x) if self.training or self.running_mean is None else self._evaluate(x)
        return y if self._together else y.reshape(shape)

    def _train(self, x: Tensor) -> Tensor:
        if self._rank_sum is None and self.batch_sum is None:
            if x.numel() == 0:
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked += 1
                sources = [t for t in (self.weight, self.bias) if t is not None]
                return nothing(len(x), x.shape[1:], x, *sources)
            return self._alone(x)
        y, *statistics = normalise(x, self.weight, self.bias, self._eps, self._total)
        if self.running_mean is not None:
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            mean, var, count = statistics
            advance_running(
                self.running_mean,
                self.running_var,
                self.num_batches_tracked,
                self._momentum,
                (mean, var, count),
            )
        return y

    def _alone(self, x: Tensor) -> Tensor:
        """As torch does it: nobody else has values of these channels."""
        momentum = self._momentum
        if self.running_mean is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=True,
            momentum=momentum or 0.0,
            eps=self._eps,
        )

    def _evaluate(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self._eps
        )

    def _total(self, own: Tensor) -> Tensor:
        if self._rank_sum is not None:
            own = self._rank_sum(own)
        # An evaluation has no other shards; a norm without running statistics comes here then too.
        return self.batch_sum(own) if self.batch_sum is not None and self.training else own


def divide_norm(
    context: Context, layer: nn.Module, inputs: Sequence[Value], out: Shape
) -> tuple[nn.Module, Layout]:
    """Divide a batch-norm, of maps or of features."""
    del out
    assert isinstance(layer, _BatchNorm)
    (value,) = inputs
    layout = value.layout
    together = not value.flat or value.shape[1:] == (1, 1)
    if layer.num_features != (value.shape[0] if together else torch.Size(value.shape).numel()):
        raise UnsupportedError("it does not normalise channels: give it (n, C, H, W) or (n, F)")
    rank_sum = context.rank_sum(layout.spatial) if together else None
    fetch = context.fetch_as(value, layout)
    norm = LocalNorm(context.rank, layer, fetch, layout, rank_sum, together=together)
    if keeps_statistics(layer):
        keep_statistics(norm)
    return norm, layout
