"""Cross-entropy, with label smoothing, and its gradient without a graph.

With s the smoothing and p the softmax of the K outputs z of a sample of class y

    l = -(1 - s) log p_y - s/K sum_k log p_k
    dl/dz_k = p_k - (1 - s) [k = y] - s/K

C. Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016.
"""

import torch
from torch import Tensor

from sixfold.training.losses.loss import Loss, scaled, weighted

_SUM, _NO_LABEL = 2, -100
"""torch's numbers for adding over samples, and for a label that stands for none."""


def cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Sum over samples of the cross-entropy of (n, K) logits, (), and its gradient, (n, K).

    Labels are (n,) int64, `weight` (n,) is of the samples; the part `smoothing` of a label is
    spread over all classes.
    """
    aten = torch.ops.aten
    log_p = logits.log_softmax(1)
    if weight is None and smoothing == 0:
        loss, total = aten.nll_loss_forward(log_p, labels, None, _SUM, _NO_LABEL)
        grad = aten.nll_loss_backward(
            torch.ones_like(loss), log_p, labels, None, _SUM, _NO_LABEL, total
        )
        return loss, aten._log_softmax_backward_data(grad, log_p, 1, logits.dtype)
    target = torch.full_like(log_p, smoothing / logits.shape[1])
    target.scatter_(1, labels[:, None], 1 - smoothing + smoothing / logits.shape[1])
    return (
        weighted(-(target * log_p).sum(1), weight),
        scaled(log_p.exp() - target, weight),
    )


def plain(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over samples of the cross-entropy."""
    return cross_entropy(logits, labels)[0]


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """How many samples have their largest output at their class."""
    return (logits.argmax(1) == labels).sum()


def make(smoothing: float = 0.0) -> Loss:
    """The loss of `--loss cross_entropy`."""

    def compute(logits: Tensor, labels: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return cross_entropy(logits, labels, weight, smoothing)

    return Loss(compute=compute, plain=plain, score=right)
