"""Batch normalisation with the statistics of the whole mini-batch, however it is divided.

Ioffe and Szegedy, "Batch normalization", 2015. For every channel, over the N values that all
shards of the step have:

    mean = sum(x) / N          var = sum((x - mean)^2) / N         (two sums, the second exact)
    xhat = (x - mean) / sqrt(var + eps)                y = weight xhat + bias
    dx = weight / sqrt(var + eps) (dy - sum(dy) / N - xhat sum(dy xhat) / N)

All sums are made in the tree of the logical shards. A shard's own sums of dy xhat and dy are its
contribution to the gradients of weight and bias.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sixfold.step.lockstep import Lockstep


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a network computes statistics over the samples it is given."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


class SyncBatchNorm(_BatchNorm):
    """Batch-norm that takes its statistics from all shards of the step.

    Args:
        norm: the module it replaces, whose parameters and buffers it takes over.
        lockstep: adds over all shards.
    """

    def __init__(self, norm: _BatchNorm, lockstep: Lockstep) -> None:
        super().__init__(
            norm.num_features,
            eps=norm.eps,
            momentum=norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
        )
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.training = norm.training
        self._lockstep = lockstep

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise (N, C, ...)."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, var, count = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, self._lockstep
        )
        if self.track_running_stats:
            self._advance(mean, var, float(count))
        normalised: Tensor = output
        return normalised

    def _advance(self, mean: Tensor, var: Tensor, count: float) -> None:
        """Move the running statistics on, with torch's unbiased variance."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = var * (count / max(count - 1, 1))
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(unbiased, weight)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        lockstep: Lockstep,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        dims = [dim for dim in range(x.dim()) if dim != 1]
        like = [1, channels] + [1] * (x.dim() - 2)
        own = x.new_tensor([x.numel() // channels])
        first = lockstep.sum(torch.cat([x.sum(dims), own]))
        count = first[-1]
        mean = first[:-1] / count
        centred = x - mean.view(like)
        var = lockstep.sum(centred.square().sum(dims)) / count
        scale = (var + eps).rsqrt()
        normal = centred.mul_(scale.view(like))
        output = normal if weight is None else normal * weight.view(like)
        if bias is not None:
            output = output + bias.view(like)
        ctx.save_for_backward(normal, weight, scale, count)
        ctx.has_bias, ctx.lockstep, ctx.dims, ctx.like = bias is not None, lockstep, dims, like
        ctx.mark_non_differentiable(mean, var, count)
        return output, mean, var, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dy = grads[0]
        normal, weight, scale, count = ctx.saved_tensors
        sums = torch.cat([dy.sum(ctx.dims), (dy * normal).sum(ctx.dims)])
        total = ctx.lockstep.sum(sums) / count
        mean_dy, mean_dy_normal = (part.view(ctx.like) for part in total.chunk(2))
        factor = scale if weight is None else scale * weight
        dx = (dy - mean_dy - normal * mean_dy_normal) * factor.view(ctx.like)
        own_bias, own_weight = sums.chunk(2)
        return (
            dx,
            own_weight if weight is not None else None,
            own_bias if ctx.has_bias else None,
            None,
            None,
        )


def synchronise_norms(model: nn.Module, lockstep: Lockstep) -> nn.Module:
    """Replace every batch-norm of a network by a synchronised one, in place.

    Args:
        model: the network; if it is itself a batch-norm, its synchronised form is returned.
        lockstep: shared by all of them.
    """
    for name, module in list(model.named_modules()):
        if not isinstance(module, _BatchNorm) or isinstance(module, SyncBatchNorm):
            continue
        synchronised = SyncBatchNorm(module, lockstep)
        if not name:
            return synchronised
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, synchronised)
    return model
