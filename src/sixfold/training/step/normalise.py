"""Batch normalisation whose statistics are sums that somebody else completes.

Ioffe and Szegedy, "Batch normalization", 2015. For every channel, over the N values there are:

    mean = sum(x) / N          var = sum((x - mean)^2) / N         (two sums, the second exact)
    xhat = (x - mean) / sqrt(var + eps)                y = weight xhat + bias
    dx = weight / sqrt(var + eps) (dy - sum(dy) / N - xhat sum(dy xhat) / N)

Whoever holds some of the values computes its own sums, and `total` adds those of all holders. The
own sums of dy xhat and dy are its contribution to the gradients of weight and bias.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Sum = Callable[[Tensor], Tensor]
"""Adds up a vector over all who hold values: (k,) -> (k,)."""


def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, total: Sum
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalise every channel.

    Args:
        x: (n, C, ...), what this holder has.
        weight: (C,) or None for ones.
        bias: (C,) or None for zeros.
        eps: added to the variance.
        total: called three times, twice forward and once backward.

    Returns:
        The normalised values, and (without gradients) mean (C,), biased variance (C,) and N.
    """
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _Normalise.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, eps, total
    )
    return found


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, total: Sum
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        dims = [dim for dim in range(x.dim()) if dim != 1]
        like = [1, channels] + [1] * (x.dim() - 2)
        own = x.new_tensor([x.shape[0] * x[0, 0].numel() if channels else 0])
        first = total(torch.cat([x.sum(dims), own]))
        count = first[-1]
        mean = first[:-1] / count
        centred = x - mean.view(like)
        var = total(centred.square().sum(dims)) / count
        scale = (var + eps).rsqrt()
        normal = centred.mul_(scale.view(like))
        # What is kept for the backward pass must not be what a ReLU behind changes in place.
        output = normal.clone() if weight is None else normal * weight.view(like)
        if bias is not None:
            output = output + bias.view(like)
        ctx.save_for_backward(normal, weight, scale, count)
        ctx.has_bias, ctx.total, ctx.dims, ctx.like = bias is not None, total, dims, like
        ctx.mark_non_differentiable(mean, var, count)
        return output, mean, var, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dy = grads[0]
        normal, weight, scale, count = ctx.saved_tensors
        sums = torch.cat([dy.sum(ctx.dims), (dy * normal).sum(ctx.dims)])
        total = ctx.total(sums) / count
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


def advance_running(
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
    momentum: float | None,
    statistics: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Move running statistics on, with torch's unbiased variance, in place.

    Args:
        running_mean: (C,).
        running_var: (C,).
        batches: number of batches so far; None for `momentum` makes a plain mean over them.
        momentum: weight of the new statistics.
        statistics: mean (C,), biased variance (C,) and number of values.
    """
    mean, var, count = statistics
    values = float(count)
    with torch.no_grad():
        batches += 1
        weight = 1 / float(batches) if momentum is None else momentum
        running_mean.lerp_(mean, weight)
        running_var.lerp_(var * (values / max(values - 1, 1)), weight)
