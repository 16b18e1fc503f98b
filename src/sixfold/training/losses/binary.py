"""Binary cross-entropy of outputs z with targets y of 0 or 1, and its gradient without a graph.

With p the weight of positive targets (1 if not given), s the logistic function, and the mean over
the K outputs of a sample

    l = 1/K sum_k (1 - y_k) z_k + (1 + (p_k - 1) y_k) softplus(-z_k)
    dl/dz_k = 1/K ( (1 - y_k) - (1 + (p_k - 1) y_k) s(-z_k) )

as `torch.nn.BCEWithLogitsLoss` has it. `binary` is the case of one output and two classes.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from sixfold.training.losses.loss import Compute, Loss, scaled, weighted


def cross_entropy_of_labels(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, positive: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum over samples of the mean over outputs, (), and its gradient, (n, K).

    Logits are (n, K), targets (n, K) 0 or 1, `weight` (n,) is of the samples, `positive` (K,) how
    much a target of 1 counts.
    """
    factor = 1.0 if positive is None else 1 + (positive.to(logits) - 1) * target
    values = (1 - target) * logits - factor * logsigmoid(logits)  # softplus(-z), no overflow
    grad = ((1 - target) - factor * (-logits).sigmoid()) / logits.shape[1]
    return weighted(values.mean(1), weight), scaled(grad, weight)


def as_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """Classes 0 and 1, (n,), as targets of one output, (n, 1)."""
    return labels[:, None].to(logits.dtype)


def binary(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`cross_entropy_of_labels` of one output, (n, 1), and classes 0 and 1, (n,)."""
    return cross_entropy_of_labels(logits, as_targets(logits, labels), weight)


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """How many samples have an output above 0 just if they are of class 1."""
    return ((logits[:, 0] > 0) == labels.bool()).sum()


def all_right(logits: Tensor, target: Tensor) -> Tensor:
    """How many samples have all their labels and no other."""
    return ((logits > 0) == target.bool()).all(1).sum()


def plain_binary(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over samples of `binary`."""
    return binary(logits, labels)[0]


def plain_multi_label(logits: Tensor, target: Tensor) -> Tensor:
    """Sum over samples of `cross_entropy_of_labels`."""
    return cross_entropy_of_labels(logits, target)[0]


BINARY = Loss(compute=binary, plain=plain_binary, score=right)


def make_multi_label(positive: Tensor | None = None) -> Loss:
    """The loss of `--loss multi_label`; a label that a sample has counts `positive` (K,)."""
    compute: Compute = cross_entropy_of_labels
    if positive is not None:

        def compute(logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
            return cross_entropy_of_labels(logits, target, weight, positive)

    return Loss(compute=compute, plain=plain_multi_label, score=all_right)
