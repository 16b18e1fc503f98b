"""The loss at the end of every network: cross-entropy, and its gradient without a graph."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over samples of the cross-entropy, and its gradient: softmax less one at the label.

    Args:
        logits: (n, classes).
        labels: (n,) int64.

    Returns:
        The loss, (), and the gradient, (n, classes).
    """
    aten = torch.ops.aten
    log_probability = logits.log_softmax(1)
    loss, weight = aten.nll_loss_forward(log_probability, labels, None, _SUM, _NO_LABEL)
    grad = aten.nll_loss_backward(
        torch.ones_like(loss), log_probability, labels, None, _SUM, _NO_LABEL, weight
    )
    return loss, aten._log_softmax_backward_data(grad, log_probability, 1, logits.dtype)


_SUM, _NO_LABEL = 2, -100
"""torch's numbers for adding over samples, and for a label that stands for none."""
