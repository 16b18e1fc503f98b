"""Shards computed on a device, here the CPU, against the ordinary step; and what needs a GPU."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sixfold import models
from sixfold.core.config import RunConfig
from sixfold.data import Augment, BatchMaker, open_data, resolve
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.process_group import alone
from sixfold.models.config import ModelConfig
from sixfold.training.config import ComputeConfig, OptimizerConfig, TrainConfig, TrainingConfig
from sixfold.training.run import train
from sixfold.training.step.batches import plan_batches
from sixfold.training.step.device_model import DeviceModel
from sixfold.training.step.frozen import freeze
from sixfold.training.step.graphs import can_be_recorded
from sixfold.training.step.preprocessing import DevicePreprocessing
from sixfold.training.step.step import Shard, Step
from sixfold.training.strategies.sync import strategy

CPU = torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


class Statistics:
    """Of images whose channels differ."""

    mean = np.array([0.3, 0.4, 0.5])
    std = np.array([0.2, 0.0, 0.25])
    dtype = np.dtype(np.uint8)


def with_everything() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.3),
        nn.Flatten(),
        nn.Linear(96, 12),
        nn.Dropout(0.2),
        nn.Linear(12, 5),
    )


class Branching(nn.Module):
    """A user's own, with a parameter that nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.spare = nn.Linear(192, 5), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.layer(x.flatten(1)), 0.4)


def pixels(count: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return found, torch.arange(count) % 5


def both(
    network: nn.Module, *, device: torch.device = CPU, compute_dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """The payloads of one shard: by the ordinary step, and on a device; some steps further on."""
    dtype = torch.float32 if compute_dtype else torch.float64
    maker = BatchMaker(Statistics(), "float32" if compute_dtype else "float64")
    raw, labels = pixels(9)
    augment = Augment(pad=2, flip=True)
    ready = maker.normalise(augment.apply(raw.numpy().copy(), 5))
    network = network.to(dtype)
    steps = [Step(copy.deepcopy(network), seed=3, compute_dtype=compute_dtype) for _ in range(2)]
    host, elsewhere = steps
    elsewhere.backend = DeviceModel(
        elsewhere, device, DevicePreprocessing(maker, 2, device), compute_dtype
    )
    outs = [step.new_payload() for step in steps]
    for number in (0, 1):
        for step in steps:
            step.state.parameters *= 0.9  # the copy has to follow
            step.state.buffers *= 0.8
            for tensor in step.state.kept:
                tensor.detach().mul_(2)
        host.shard_payload(
            number, Shard(index=2, images=torch.from_numpy(ready), labels=labels), outs[0]
        )
        elsewhere.shard_payload(
            number,
            Shard(index=2, images=raw, labels=labels, draws=augment.draws(9, 5)),
            outs[1],
        )
    for one, other in zip(host.model.buffers(), elsewhere.model.buffers(), strict=True):
        assert torch.equal(one, other)  # a shard leaves the host's as they were
    return outs[0], outs[1]


@pytest.mark.parametrize("make", [with_everything, Branching])
def test_a_shard_is_that_of_the_ordinary_step(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    wanted, found = both(make())
    assert wanted.abs().max() > 0
    assert (wanted - found).abs().max() <= 1e-12 * wanted.abs().max()


def test_what_is_frozen_follows_when_it_is_written_to() -> None:
    torch.manual_seed(0)
    wanted, found = both(freeze(with_everything(), OptimizerConfig(freeze="0,1")))
    assert wanted.abs().max() > 0
    assert (wanted - found).abs().max() <= 1e-12 * wanted.abs().max()


@pytest.mark.parametrize("name", ["slide", "lenet5", "resnet20", "mobilenet_v2"])
def test_networks_of_the_zoo(name: str) -> None:
    arguments = {"resnet20": "depth=8", "mobilenet_v2": "width=0.25"}.get(name, "")
    size = 28 if name == "lenet5" else 16
    config = ModelConfig(model=name, model_args=arguments)
    network = models.build(config, shape=(3, size, size), classes=5, seed=0).double()
    maker = BatchMaker(Statistics(), "float64")
    raw, labels = pixels(8, size)
    host, elsewhere = (Step(copy.deepcopy(network), seed=3) for _ in range(2))
    elsewhere.backend = DeviceModel(elsewhere, CPU, DevicePreprocessing(maker, 0, CPU))
    wanted, found = host.new_payload(), elsewhere.new_payload()
    images = torch.from_numpy(maker.normalise(raw.numpy()))
    host.shard_payload(0, Shard(index=0, images=images, labels=labels), wanted)
    elsewhere.shard_payload(0, Shard(index=0, images=raw, labels=labels), found)
    assert (wanted - found).abs().max() <= 1e-12 * wanted.abs().max()


def test_bf16_is_as_near_as_bf16_is() -> None:
    torch.manual_seed(0)
    wanted, found = both(with_everything(), compute_dtype=torch.bfloat16)
    assert found.dtype == torch.float32
    assert (wanted - found).norm() < 0.02 * wanted.norm()
    assert not torch.equal(wanted, both(with_everything(), compute_dtype=None)[0].float())


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("augment", ["none", "flip", "crop:3", "crop:20,flip-alternate"])
def test_images_have_the_bits_that_they_have_on_the_host(precision: str, augment: str) -> None:
    config = TrainConfig(
        data=DataConfig(data="synthetic:40x3x8x8", augment=augment),
        training=TrainingConfig(batch_size=32, steps=2, precision=precision),
    )
    data = open_data(resolve(config.data))
    host = plan_batches(config, data, batch_norm=False)
    there = plan_batches(config, data, batch_norm=False, device=CPU)
    pad = 0 if there.augment is None else there.augment.pad
    pictures = DevicePreprocessing(there.make_batch, pad, CPU)
    count = 0
    for wanted, raw in zip(host.own_shards(alone(), 0), there.own_shards(alone(), 0), strict=True):
        found = pictures.ready(raw.images, raw.draws)
        assert torch.equal(found, wanted.images)
        assert found.dtype == wanted.images.dtype
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(raw.labels, wanted.labels)
        assert raw.images.dtype == torch.uint8
        count += 1
    assert count == 4 + 2  # shards of 32 and of 8 images


def test_a_gradient_that_does_not_exist_is_zero() -> None:
    torch.manual_seed(0)
    network = Branching().double()
    raw, labels = pixels(4)
    step = Step(network, seed=0)
    step.backend = DeviceModel(
        step, CPU, DevicePreprocessing(BatchMaker(Statistics(), "float64"), 0, CPU)
    )
    out = torch.full_like(step.new_payload(), torch.nan)
    step.shard_payload(0, Shard(index=0, images=raw, labels=labels), out)
    gradients = dict(step.state.named_views(step.state.split(out)[0]))
    assert gradients["spare"].tolist() == [0.0, 0.0]


def settings(out: Path, workers: int) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data="synthetic:48x3x8x8", augment="crop:2,flip"),
        model=ModelConfig(model="resnet20", model_args="depth=8"),
        optimizer=OptimizerConfig(lr=0.05),
        training=TrainingConfig(batch_size=32, epochs=1, precision="float64", shards=4),
        engine=EngineConfig(engine="inline", workers=workers),
        run=RunConfig(out=str(out)),
    )


def test_a_training_by_way_of_a_device_is_the_ordinary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = train(settings(tmp_path / "ordinary", 2))
    monkeypatch.setattr(strategy, "rank_device", lambda *_: CPU)
    found = [train(settings(tmp_path / str(workers), workers)) for workers in (1, 2, 3)]
    assert len({result["weights_sha256"] for result in found}) == 1
    assert found[0]["device"] == "cpu"
    assert found[0]["cuda_graphs"] is False
    assert found[0]["test_loss"] == pytest.approx(ordinary["test_loss"], rel=1e-9)
    assert "device" not in ordinary


def test_networks_that_do_the_same_each_time_may_be_recorded() -> None:
    def zoo(name: str, arguments: str = "") -> nn.Module:
        config = ModelConfig(model=name, model_args=arguments)
        model = models.build(config, shape=(3, 32, 32), classes=10, seed=0)
        return Step(model, seed=0).model

    assert all(can_be_recorded(zoo(name)) for name in ("slide", "lenet5", "resnet20", "vgg16"))
    assert can_be_recorded(zoo("mobilenet_v2", "dropout=0"))
    assert not can_be_recorded(zoo("mobilenet_v2", "dropout=0.2"))
    assert not can_be_recorded(Branching())
    assert not can_be_recorded(nn.Sequential(nn.BatchNorm2d(3, momentum=None)))


@GPU
def test_a_shard_on_a_gpu_is_near_that_of_the_host() -> None:
    torch.manual_seed(0)
    wanted, found = both(with_everything(), device=torch.device("cuda", 0))
    assert (wanted - found).abs().max() <= 1e-10 * wanted.abs().max()


@GPU
def test_a_replayed_graph_gives_the_bits_of_the_run_before_it() -> None:
    device = torch.device("cuda", 0)
    network = models.build(ModelConfig(model="slide"), shape=(3, 8, 8), classes=5, seed=0)
    raw, labels = pixels(8)
    step = Step(network, seed=0)
    device_model = DeviceModel(
        step, device, DevicePreprocessing(BatchMaker(Statistics(), "float32"), 0, device)
    )
    step.backend = device_model
    found = []
    for recorded in (True, True, False):
        if not recorded:
            device_model._graphs = None
        out = step.new_payload()
        step.shard_payload(0, Shard(index=0, images=raw, labels=labels), out)
        found.append(out)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@GPU
def test_the_same_bits_for_any_number_of_ranks_on_gpus(tmp_path: Path) -> None:
    hashes = set()
    for workers in (1, 2, 3):
        config = TrainConfig(
            data=DataConfig(data="synthetic:96x3x16x16"),
            model=ModelConfig(model="resnet20", model_args="depth=8"),
            training=TrainingConfig(batch_size=64, steps=3, shards=4),
            compute=ComputeConfig(device="cuda"),
            engine=EngineConfig(engine="local", workers=workers),
            run=RunConfig(out=str(tmp_path / str(workers))),
        )
        hashes.add(train(config)["weights_sha256"])
    assert len(hashes) == 1
