"""Every loss and its gradient, in float64, against torch's own with autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sixfold.training.losses import binary, cross_entropy, regression
from sixfold.training.losses.loss import Loss

SAMPLES, OUTPUTS = 7, 5
POSITIVE = torch.tensor([0.5, 1.0, 3.0, 7.0, 0.0], dtype=torch.float64)

Torch = Callable[[Tensor, Tensor], Tensor]
"""Losses of samples, (n,)."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])
OF_TWO = torch.tensor([0, 1, 1, 0, 1, 0, 0])
SETS = (draw(SAMPLES, OUTPUTS, seed=2) > 0).double()
NUMBERS = draw(SAMPLES, OUTPUTS, seed=3)


def smooth(smoothing: float) -> Torch:
    return lambda z, y: functional.cross_entropy(z, y, reduction="none", label_smoothing=smoothing)


def of_labels(positive: Tensor | None) -> Torch:
    return lambda z, y: functional.binary_cross_entropy_with_logits(
        z, y, reduction="none", pos_weight=positive
    ).mean(1)


CASES: dict[str, tuple[Loss, Torch, Tensor, int]] = {
    "cross_entropy": (cross_entropy.make(), smooth(0), LABELS, OUTPUTS),
    "label smoothing": (cross_entropy.make(0.1), smooth(0.1), LABELS, OUTPUTS),
    "binary": (
        binary.BINARY,
        lambda z, y: functional.binary_cross_entropy_with_logits(
            z[:, 0], y.double(), reduction="none"
        ),
        OF_TWO,
        1,
    ),
    "multi_label": (binary.make_multi_label(), of_labels(None), SETS, OUTPUTS),
    "multi_label, balanced": (
        binary.make_multi_label(POSITIVE),
        of_labels(POSITIVE),
        SETS,
        OUTPUTS,
    ),
    "mse": (
        regression.SQUARED,
        lambda z, y: functional.mse_loss(z, y, reduction="none").mean(1),
        NUMBERS,
        OUTPUTS,
    ),
    "l1": (
        regression.ABSOLUTE,
        lambda z, y: functional.l1_loss(z, y, reduction="none").mean(1),
        NUMBERS,
        OUTPUTS,
    ),
    "huber": (
        regression.make_huber(1.5),
        lambda z, y: functional.huber_loss(z, y, reduction="none", delta=1.5).mean(1),
        NUMBERS,
        OUTPUTS,
    ),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradient_are_torchs(name: str, weighted: bool) -> None:
    loss, reference, target, outputs = CASES[name]
    output = draw(SAMPLES, outputs, seed=1).requires_grad_()
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0, 1.0, 0.25], dtype=torch.float64)
    values = reference(output, target)
    wanted = (values * weight).sum() if weighted else values.sum()
    (gradient,) = torch.autograd.grad(wanted, output)
    found, own = loss.compute(output.detach(), target, weight if weighted else None)
    assert torch.allclose(found, wanted, rtol=1e-14, atol=0)
    assert torch.allclose(own, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_evaluations_tell_the_loss_without_smoothing_and_weights(name: str) -> None:
    loss, _, target, outputs = CASES[name]
    plain = CASES[{"label smoothing": "cross_entropy"}.get(name, name).partition(",")[0]][1]
    output = draw(SAMPLES, outputs, seed=1)
    assert torch.allclose(loss.plain(output, target), plain(output, target).sum(), rtol=1e-13)


@pytest.mark.parametrize("size", [1e3, -1e3])
def test_large_outputs_do_not_overflow(size: float) -> None:
    for loss, _, target, outputs in CASES.values():
        found, own = loss.compute(torch.full((SAMPLES, outputs), size), target, None)
        assert found.isfinite()
        assert own.isfinite().all()


def test_what_is_right() -> None:
    assert cross_entropy.right(torch.eye(5)[LABELS], LABELS) == SAMPLES
    assert binary.right(torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([1, 0, 0])) == 2
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert binary.all_right(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), labels) == 1
