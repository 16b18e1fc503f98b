"""Steps with weights, several outputs and losses of the user's, against autograd in float64."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.conformance.losses import TwoHeads, own_of_both, own_sum
from torch import Tensor, nn
from torch.nn import functional

from sixfold.data import BatchMaker
from sixfold.training.losses import cross_entropy, own, regression
from sixfold.training.losses.loss import Loss
from sixfold.training.losses.outputs import own_of_all, with_heads
from sixfold.training.step.device_model import DeviceModel
from sixfold.training.step.preprocessing import DevicePreprocessing
from sixfold.training.step.step import Shard, Step, StepTotals

COUNT = 12
CPU = torch.device("cpu")


class Statistics:
    mean, std = np.array([0.4]), np.array([0.3])
    dtype = np.dtype(np.uint8)


MAKER = BatchMaker(Statistics(), "float64")
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 8, 8), dtype=np.uint8)
IMAGES = torch.from_numpy(MAKER.normalise(PIXELS))
LABELS = torch.arange(COUNT) % 3
NUMBERS = torch.linspace(-1, 1, 3 * COUNT, dtype=torch.float64).reshape(COUNT, 3)
WEIGHTS = torch.linspace(0, 2, COUNT, dtype=torch.float64)


def one_head() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).double()


def two_heads() -> nn.Module:
    torch.manual_seed(0)
    return TwoHeads().double().requires_grad_()


def entropy(output: Tensor, weights: Tensor) -> Tensor:
    return (functional.cross_entropy(output, LABELS, reduction="none") * weights).sum()


CASES: dict[str, tuple[Callable[[], nn.Module], Loss, Tensor, Callable[..., Tensor]]] = {
    "weighted": (one_head, cross_entropy.make(), LABELS, entropy),
    "numbers": (
        one_head,
        regression.SQUARED,
        NUMBERS,
        lambda output, weights: ((output - NUMBERS).square().mean(1) * weights).sum(),
    ),
    "own": (one_head, own.make(own_sum, cross_entropy.right), LABELS, entropy),
    "two heads": (
        two_heads,
        with_heads(cross_entropy.make(), {"1": 0.3}),
        LABELS,
        lambda outputs, weights: entropy(outputs[0], weights) + 0.3 * entropy(outputs[1], weights),
    ),
    "own of both": (
        two_heads,
        own_of_all(own_of_both, None),
        LABELS,
        lambda outputs, weights: own_of_both(outputs, LABELS) + 0 * weights.sum(),
    ),
}


def made(step: Step, targets: Tensor, images: Tensor, weights: Tensor | None) -> StepTotals:
    """A step of two shards."""
    total = step.new_payload()
    for index, part in enumerate((slice(0, 5), slice(5, COUNT))):
        out = step.new_payload()
        own_weights = None if weights is None else weights[part]
        shard = Shard(index=index, images=images[part], labels=targets[part], weights=own_weights)
        step.shard_payload(0, shard, out)
        total += out
    return step.finish(total)


def _as_in_evaluation(norm: nn.Module, _: object) -> None:
    norm.eval()


def plain_norms(network: nn.Module) -> nn.Module:
    """The network with its norms as in evaluation, which do not depend on how shards are cut."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
            module.register_forward_pre_hook(_as_in_evaluation)
    return network


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_the_weighted_mean(name: str, elsewhere: bool) -> None:
    make, loss, targets, reference = CASES[name]
    network = plain_norms(make())
    twin = plain_norms(make())
    weights = torch.ones(COUNT, dtype=torch.float64) if name == "own of both" else WEIGHTS
    mean = reference(twin.train()(IMAGES), weights) / weights.sum()
    gradients = torch.autograd.grad(mean, list(twin.parameters()), allow_unused=True)
    step = Step(network, seed=0, loss=loss)
    images = IMAGES
    if elsewhere:
        step.backend = DeviceModel(step, CPU, DevicePreprocessing(MAKER, 0, CPU))
        images = torch.from_numpy(PIXELS)
    given = None if name == "own of both" else weights
    totals = made(step, targets, images, given)
    assert totals.loss == pytest.approx(float(mean.detach()), rel=1e-12)
    assert totals.samples == COUNT
    for view, gradient in zip(step.state.views(totals.gradient), gradients, strict=True):
        assert gradient is not None
        assert torch.allclose(view, gradient, rtol=1e-10, atol=1e-13)


def test_a_step_in_which_nothing_counts_changes_nothing() -> None:
    step = Step(one_head(), seed=0)
    totals = made(step, LABELS, IMAGES, torch.zeros(COUNT, dtype=torch.float64))
    assert totals.loss == 0
    assert not totals.gradient.any()


def test_pieces_of_a_shard_take_their_own_weights() -> None:
    whole, cut = (Step(copy.deepcopy(one_head()), seed=0) for _ in range(2))
    cut.micro_batch = type(cut.micro_batch)(images=2)
    one, other = (made(step, LABELS, IMAGES, WEIGHTS) for step in (whole, cut))
    assert torch.allclose(one.gradient, other.gradient, rtol=1e-12)
    assert one.loss == pytest.approx(other.loss, rel=1e-13)
