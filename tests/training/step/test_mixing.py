"""MixUp and CutMix: from the images of a plan to the loss of a step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sixfold.data import DataSet, open_data, parse_augment, resolve
from sixfold.data.augmentation.mixing import draw_cutmix, draw_mixup
from sixfold.data.config import DataConfig
from sixfold.distributed.process_group import alone
from sixfold.training.config import OptimizerConfig, TrainConfig, TrainingConfig
from sixfold.training.losses import cross_entropy
from sixfold.training.losses.loss import Loss
from sixfold.training.losses.outputs import with_heads
from sixfold.training.losses.partners import Partners, compute
from sixfold.training.losses.regression import ABSOLUTE, SQUARED
from sixfold.training.step.batches import BatchPlan, plan_batches
from sixfold.training.step.device_model import DeviceModel
from sixfold.training.step.micro_batches import MicroBatch
from sixfold.training.step.preprocessing import DevicePreprocessing
from sixfold.training.step.step import Shard, Step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> DataSet:
    return open_data(resolve(DataConfig(data="synthetic:90x3x8x8")))


def plan(data: DataSet, augment: str, *, device: torch.device | None = None) -> BatchPlan:
    config = TrainConfig(
        data=DataConfig(data="", augment=augment),
        optimizer=OptimizerConfig(),
        training=TrainingConfig(batch_size=40, steps=6, precision="float64", shards=4),
    )
    return plan_batches(config, data, batch_norm=False, device=device)


def shards(found: BatchPlan) -> list[Shard]:
    return list(found.own_shards(alone(), 0))


def rolled(values: Tensor) -> Tensor:
    return torch.stack([values[i - 1] for i in range(len(values))])


def test_mixup_blends_each_image_with_the_one_before_it(data: DataSet) -> None:
    shares = set()
    plain, mixed = shards(plan(data, "flip")), shards(plan(data, "flip,mixup:0.5"))
    for one, other in zip(plain, mixed, strict=True):
        assert other.partners is not None
        share = float(other.partners.share)
        shares.add(share)
        wanted = share * one.images + (1 - share) * rolled(one.images)
        assert (other.images - wanted).abs().max() < 1e-12
        assert torch.equal(other.labels, one.labels)
        assert torch.equal(other.partners.labels, rolled(one.labels))
    assert len(shares) == len(plain)  # a draw for each shard of each step
    assert 0 <= min(shares) < 0.3 < max(shares) <= 1


def test_cutmix_pastes_a_box_of_the_area_that_the_label_has(data: DataSet) -> None:
    boxes = 0
    for one, other in zip(shards(plan(data, "none")), shards(plan(data, "cutmix")), strict=True):
        assert other.partners is not None
        changed = (one.images != other.images).any(1).any(0)  # of all images the same box
        area = 1 - float(other.partners.share)
        assert changed.double().mean() <= area + 1e-12
        if changed.any():
            boxes += 1
            rows, columns = changed.any(1), changed.any(0)
            box = (rows.nonzero().ravel()[[0, -1]], columns.nonzero().ravel()[[0, -1]])
            (top, bottom), (left, right) = ((a, b + 1) for a, b in box)
            assert (bottom - top) * (right - left) / 64 == pytest.approx(area)
            part = (..., slice(top, bottom), slice(left, right))
            assert torch.equal(other.images[part], rolled(one.images)[part])
    assert boxes > 5


def test_of_two_mixes_each_shard_draws_one(data: DataSet) -> None:
    augment = parse_augment("mixup,cutmix")
    kinds = [augment.mix(10, (8, 8), key) for key in range(60)]
    assert 15 < sum(mix is not None and mix.box is None for mix in kinds) < 45
    assert augment.mix(1, (8, 8), 0) is None  # alone, there is nobody to be mixed with
    assert parse_augment("flip").mix(10, (8, 8), 0) is None
    assert all(shard.partners is not None for shard in shards(plan(data, "mixup,cutmix")))


def test_shares_are_of_a_symmetric_beta_distribution() -> None:
    shares = np.array([draw_mixup(key, (8, 8), (0.5,)).share for key in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / 8, abs=0.01)  # 1 / (4 (2 a + 1))
    left = np.array([draw_cutmix(key, (64, 64), (1.0,)).share for key in range(2000)])
    assert 0.55 < left.mean() < 0.7  # boxes are cut at the border


def soft_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return -(targets * outputs.log_softmax(1)).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_mixed_labels(*, weighted: bool, smoothing: float) -> None:
    torch.manual_seed(0)
    outputs = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    labels, share = torch.arange(9) % 4, 0.3
    weights = torch.linspace(0.5, 2, 9, dtype=torch.float64) if weighted else None
    partners = Partners.of(labels, weights, share)
    found = compute(cross_entropy.make(smoothing), outputs.detach(), labels, weights, partners)
    ones = torch.ones(9, dtype=torch.float64) if weights is None else weights
    spread = functional.one_hot(labels, 4).double() * (1 - smoothing) + smoothing / 4
    target = share * ones[:, None] * spread + (1 - share) * rolled(ones[:, None] * spread)
    wanted = soft_loss(outputs, target)
    wanted.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert found[0] == pytest.approx(float(wanted.detach()), rel=1e-12)
    assert (found[1] - outputs.grad).abs().max() < 1e-12


def test_the_gradient_of_squares_is_that_of_the_mixed_numbers() -> None:
    outputs, target = torch.randn(6, 2), torch.randn(6, 2)
    partners = Partners.of(target, None, 0.25)
    mixed = 0.25 * target + 0.75 * rolled(target)
    found = compute(SQUARED, outputs, target, None, partners)[1]
    assert (found - SQUARED.compute(outputs, mixed, None)[1]).abs().max() < 1e-6
    value = compute(ABSOLUTE, outputs, target, None, partners)[0]
    far = (outputs - rolled(target)).abs().mean(1).sum()
    near = (outputs - target).abs().mean(1).sum()
    assert float(value) == pytest.approx(float(0.25 * near + 0.75 * far), rel=1e-5)


def test_several_outputs_are_mixed_alike() -> None:
    loss = with_heads(cross_entropy.make(), {"aux": 0.5})
    outputs = {"out": torch.randn(5, 3), "aux": torch.randn(5, 3)}
    labels = torch.tensor([0, 1, 2, 0, 1])
    value, gradients = compute(loss, outputs, labels, None, Partners.of(labels, None, 0.6))
    own, own_gradients = loss.compute(outputs, labels, None)
    other, other_gradients = loss.compute(outputs, rolled(labels), None)
    assert float(value) == pytest.approx(float(0.6 * own + 0.4 * other), rel=1e-6)
    for name, gradient in gradients.items():
        wanted = 0.6 * own_gradients[name] + 0.4 * other_gradients[name]
        assert (gradient - wanted).abs().max() < 1e-6


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).double()


def payload(step: Step, shard: Shard) -> Tensor:
    out = step.new_payload()
    step.shard_payload(0, shard, out)
    return out


def test_a_shard_counts_its_mixed_samples_in_whole_and_in_pieces(data: DataSet) -> None:
    weights = np.linspace(0.5, 2, len(data.train))
    mixed = dataclasses.replace(plan(data, "mixup"), weights=weights)
    shard = shards(mixed)[0]
    step = Step(small(), seed=0, loss=cross_entropy.make(0.1))
    whole = payload(step, shard)
    step.micro_batch = MicroBatch(images=3)
    assert (payload(step, shard) - whole).abs().max() < 1e-12
    loss, right, samples, weight, *_ = step.state.split(whole)[3].tolist()
    assert (samples, loss > 0) == (10, True)
    assert shard.weights is not None
    assert shard.partners is not None
    assert shard.partners.weights is not None
    share = float(shard.partners.share)
    assert weight == pytest.approx(
        share * float(shard.weights.sum()) + (1 - share) * float(shard.partners.weights.sum())
    )
    told = step.model.eval()(shard.images).argmax(1)
    rate = share * (told == shard.labels) + (1 - share) * (told == shard.partners.labels)
    assert right == pytest.approx(float(rate.sum()))


@pytest.mark.parametrize("augment", ["mixup", "crop:1,flip,cutmix", "randaugment:1,mixup"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_device_mixes_as_the_host_does(data: DataSet, augment: str, *, weighted: bool) -> None:
    weights = np.linspace(0.5, 2, len(data.train)) if weighted else None
    plans = [
        dataclasses.replace(plan(data, augment, device=where), weights=weights)
        for where in (None, CPU)
    ]
    loss: Loss = cross_entropy.make(0.1)
    host, elsewhere = (Step(small(), seed=0, loss=loss) for _ in range(2))
    pictures = DevicePreprocessing(plans[1].make_batch, plans[1].augment.pad, CPU)
    elsewhere.backend = DeviceModel(elsewhere, CPU, pictures)
    elsewhere.backend.refresh()
    for one, other in zip(shards(plans[0])[:6], shards(plans[1])[:6], strict=True):
        assert other.images.dtype == torch.uint8
        wanted, found = payload(host, one), payload(elsewhere, other)
        assert (wanted - found).abs().max() <= 1e-12 * wanted.abs().max()
