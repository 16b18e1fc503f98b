"""Shrinking activations, whole and in micro-batches, have autograd's very bits."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.training.step.micro_batches import MicroBatch, micro_batches, why_whole
from sixfold.training.step.step import Shard, Step

LAYERS = {
    "hardshrink": nn.Hardshrink(0.3),
    "softshrink": nn.Softshrink(0.2),
    "tanhshrink": nn.Tanhshrink(),
    "threshold": nn.Threshold(0.1, 2.0),
}


def network(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(32, 12), copy.deepcopy(LAYERS[name]), nn.Linear(12, 5)
    ).double()


def by_autograd(model: nn.Module, shard: Shard, pieces: list[slice]) -> list[Tensor]:
    for piece in pieces:
        scores = model(shard.images[piece])
        functional.cross_entropy(scores, shard.labels[piece], reduction="sum").backward()  # type: ignore[no-untyped-call]
    return [parameter.grad for parameter in model.parameters()]  # type: ignore[misc]


@pytest.mark.parametrize("images", [None, 3, 8])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_have_the_bits_of_autograd(name: str, images: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(11, 2, 4, 4, generator=generator, dtype=torch.float64)
    shard = Shard(index=0, images=pixels, labels=torch.arange(11) % 5)
    assert not why_whole(network(name))
    step = Step(network(name), seed=7)
    step.micro_batch = MicroBatch(images=images)
    out = step.new_payload()
    step.shard_payload(0, shard, out)
    expected = by_autograd(network(name), shard, micro_batches(11, images))
    for found, wanted in zip(step.state.parts(out).gradients, expected, strict=True):
        assert torch.equal(found, wanted)
        assert wanted.abs().sum() > 0
