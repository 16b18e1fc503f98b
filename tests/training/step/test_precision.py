"""bf16: close to float32, the same bits for any number of workers, and float32 where it matters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.marks import quick
from torch import Tensor, nn

from sixfold import models
from sixfold.core.config import RunConfig
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.models.config import ModelConfig
from sixfold.models.shapes import Shape
from sixfold.training.config import TrainConfig, TrainingConfig
from sixfold.training.run import train
from sixfold.training.step.step import Shard, Step

NETWORKS = [
    ("slide", (3, 32, 32)),
    ("lenet5", (1, 28, 28)),
    ("resnet20", (3, 32, 32)),
    pytest.param("vgg16", (3, 32, 32), marks=pytest.mark.full),
    ("lenet300", (1, 28, 28)),
]


def network(name: str, shape: Shape) -> nn.Module:
    model = models.build(ModelConfig(model=name), shape=shape, classes=10, seed=0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


def shard_of(shape: Shape) -> Shard:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, *shape, generator=generator)
    return Shard(index=0, images=images, labels=torch.arange(16) % 10)


def gradient(name: str, shape: Shape, compute_dtype: torch.dtype | None) -> tuple[Tensor, Step]:
    step = Step(network(name, shape), seed=0, compute_dtype=compute_dtype)
    out = step.new_payload()
    step.shard_payload(0, shard_of(shape), out)
    return out, step


def by_autocast(name: str, shape: Shape) -> Tensor:
    """The gradient as torch.autocast makes it, of the same network, flat as a payload's."""
    model, shard = network(name, shape), shard_of(shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(shard.images)
    nn.functional.cross_entropy(logits.float(), shard.labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
    state = Step(network(name, shape), seed=0).state
    found = torch.zeros_like(state.parameters)
    for view, parameter in zip(state.views(found), model.parameters(), strict=True):
        assert parameter.grad is not None
        view.copy_(parameter.grad)
    return found


@pytest.mark.parametrize(("name", "shape"), NETWORKS)
def test_gradients_are_as_near_to_float32_as_those_of_autocast(name: str, shape: Shape) -> None:
    wide, _ = gradient(name, shape, None)
    narrow, step = gradient(name, shape, torch.bfloat16)
    assert narrow.dtype == torch.float32
    wanted, wanted_buffers, _, _ = step.state.split(wide)
    found, buffers, _, _ = step.state.split(narrow)
    assert (found - wanted).norm() < 1.3 * (by_autocast(name, shape) - wanted).norm()
    if len(buffers):
        assert (buffers - wanted_buffers).norm() < 0.02 * wanted_buffers.norm()


def test_weights_are_kept_in_float32_so_that_small_updates_count() -> None:
    _, step = gradient("slide", (3, 32, 32), torch.bfloat16)
    weights = step.state.parameters
    before = weights.clone()
    weights *= 1 + 2**-20
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, before)
    assert (weights.bfloat16() != before.bfloat16()).float().mean() < 0.01


def test_the_copy_follows_the_weights() -> None:
    _, step = gradient("slide", (3, 32, 32), torch.bfloat16)
    shard = Shard(index=0, images=torch.ones(4, 3, 32, 32), labels=torch.arange(4))
    first, second = step.new_payload(), step.new_payload()
    step.shard_payload(0, shard, first)
    step.state.parameters *= 0.5
    step.shard_payload(0, shard, second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("batch_norm", quick(["shard", "sync"], "sync"))
def test_the_same_bits_for_any_number_of_workers(tmp_path: Path, batch_norm: str) -> None:
    hashes = set()
    for workers in (1, 2, 3):
        config = TrainConfig(
            data=DataConfig(data="synthetic:96x3x8x8"),
            model=ModelConfig(model="resnet20", model_args="depth=8"),
            training=TrainingConfig(
                batch_size=64, steps=2, precision="bf16", batch_norm=batch_norm, shards=4
            ),
            engine=EngineConfig(engine="inline", workers=workers),
            run=RunConfig(out=str(tmp_path / f"{workers}")),
        )
        hashes.add(train(config)["weights_sha256"])
    assert len(hashes) == 1
