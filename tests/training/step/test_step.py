"""The step against plain torch: gradients, buffers, dropout, and what a shard depends on."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.marks import quick
from torch import Tensor, nn

from sixfold.distributed.collectives import tree_all_reduce
from sixfold.distributed.logical_shards import shard_bounds, shard_count
from sixfold.distributed.process_group import alone
from sixfold.training.layers.dropout import KeyedDropout
from sixfold.training.step.lockstep import SharedState, replay
from sixfold.training.step.step import Shard, Step, StepTotals


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 5),
    )


def norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3, stride=2),
        nn.BatchNorm2d(3, momentum=None),
        nn.Flatten(),
        nn.Linear(27, 6),
        nn.BatchNorm1d(6, affine=False),
        nn.ReLU(inplace=True),
        nn.Linear(6, 5),
    )


def samples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 2, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 5, (count,), generator=generator)


def make(network: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return network().double()


def cut(images: Tensor, labels: Tensor, count: int) -> list[Shard]:
    bounds = [shard_bounds(len(labels), count, index) for index in range(count)]
    return [
        Shard(index=index, images=images[a:b], labels=labels[a:b])
        for index, (a, b) in enumerate(bounds)
    ]


def whole_step(step: Step, shards: list[Shard], number: int = 0) -> StepTotals:
    """All shards on one rank."""
    comm = alone()

    def total_sum(partials: Any, out: Any) -> Any:
        return tree_all_reduce(comm, partials, len(shards), out=out)

    partials = step.partials(number, shards, total_sum)
    total = torch.from_numpy(tree_all_reduce(comm, partials, len(shards)).copy())
    step.release()
    return step.finish(total)


def named_gradients(step: Step, totals: StepTotals) -> dict[str, Tensor]:
    return dict(step.state.named_views(totals.gradient))


@pytest.mark.parametrize("count", [7, 10, 33, 100])
def test_gradient_is_that_of_the_whole_batch_in_plain_torch(count: int) -> None:
    images, labels = samples(count)
    oracle = make(conv_net)
    loss = nn.functional.cross_entropy(oracle(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]

    step = Step(make(conv_net), seed=0)
    totals = whole_step(step, cut(images, labels, shard_count(count)))

    found = named_gradients(step, totals)
    for name, parameter in oracle.named_parameters():
        assert parameter.grad is not None
        assert (found[name] - parameter.grad).abs().max() < 1e-12
    assert abs(totals.loss - float(loss.detach())) < 1e-12
    assert totals.samples == count
    correct = (oracle(images).argmax(1) == labels).double().mean()
    assert totals.accuracy == pytest.approx(float(correct))


@pytest.mark.parametrize("count", [10, 40, 70])
def test_synchronised_norms_are_torch_norms_of_the_whole_batch(count: int) -> None:
    images, labels = samples(count)
    oracle = make(norm_net)
    loss = nn.functional.cross_entropy(oracle(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]

    step = Step(make(norm_net), seed=0, sync_norms=True)
    totals = whole_step(step, cut(images, labels, shard_count(count, batch_norm=True)))

    found = named_gradients(step, totals)
    for name, parameter in oracle.named_parameters():
        assert parameter.grad is not None
        assert (found[name] - parameter.grad).abs().max() < 1e-12, name
    state = step.model.state_dict()
    for name, buffer in oracle.named_buffers():
        assert (state[name].double() - buffer.double()).abs().max() < 1e-12, name
    assert abs(totals.loss - float(loss.detach())) < 1e-12


@pytest.mark.parametrize("count", [64, 70])
def test_shard_norms_use_each_shard_and_average_their_statistics(count: int) -> None:
    images, labels = samples(count)
    shards = cut(images, labels, shard_count(count, batch_norm=True))
    oracle = make(norm_net)
    begin = copy.deepcopy(oracle.state_dict())
    after: dict[str, Tensor] = {}
    for shard in shards:
        oracle.load_state_dict(begin)
        logits = oracle(shard.images)
        loss = nn.functional.cross_entropy(logits, shard.labels, reduction="sum") / count
        loss.backward()  # type: ignore[no-untyped-call]
        weight = len(shard.labels) / count
        for name, buffer in oracle.named_buffers():
            after[name] = after.get(name, torch.zeros(())) + weight * buffer.double()

    step = Step(make(norm_net), seed=0)
    totals = whole_step(step, shards)

    found = named_gradients(step, totals)
    for name, parameter in oracle.named_parameters():
        assert parameter.grad is not None
        assert (found[name] - parameter.grad).abs().max() < 1e-12
    state = step.model.state_dict()
    for name, expected in after.items():
        assert (state[name].double() - expected).abs().max() < 1e-12, name


@pytest.mark.parametrize("sync_norms", quick([False, True], True))
def test_the_whole_step_passes_a_numerical_gradient_check(sync_norms: bool) -> None:
    images, labels = samples(12)
    shards = cut(images, labels, 2)
    step = Step(make(norm_net), seed=0, sync_norms=sync_norms)
    buffers = step.state.buffers.clone()

    def loss() -> float:
        step.state.buffers.copy_(buffers)
        return whole_step(step, shards).loss

    gradient = whole_step(step, shards).gradient.clone()
    weights, epsilon = step.state.parameters, 1e-6
    random = torch.Generator().manual_seed(0)
    used = torch.cat([torch.arange(len(weights))[view.bool()] for view in [gradient != 0]])
    assert len(used) > 100
    for place in used[torch.randperm(len(used), generator=random)[:60]].tolist():
        value = float(weights[place])
        weights[place] = value + epsilon
        above = loss()
        weights[place] = value - epsilon
        below = loss()
        weights[place] = value
        assert (above - below) / (2 * epsilon) == pytest.approx(float(gradient[place]), abs=1e-7)


def test_a_shard_can_be_computed_again_in_any_order_by_anyone() -> None:
    images, labels = samples(64)
    shards = cut(images, labels, 4)

    def network() -> nn.Module:
        return nn.Sequential(conv_net()[:4], nn.Dropout(0.3), nn.Linear(64, 5))  # type: ignore[index]

    first, second = Step(make(network), seed=5), Step(make(network), seed=5)
    outs = [first.new_payload() for _ in shards]
    for shard, out in zip(shards, outs, strict=True):
        first.shard_payload(3, shard, out)
    torch.rand(17)
    for shard in reversed(shards):
        again = second.new_payload()
        second.shard_payload(3, shard, again)
        assert torch.equal(again, outs[shard.index])


def test_one_shard_of_a_synchronised_step_can_be_computed_again_from_the_kept_sums() -> None:
    images, labels = samples(64)
    shards = cut(images, labels, 4)
    step = Step(make(norm_net), seed=5, sync_norms=True)
    assert step.lockstep is not None
    comm = alone()
    payloads: dict[int, Tensor] = {}
    original = step.shard_payload

    def keep(number: int, shard: Shard, out: Tensor) -> None:
        original(number, shard, out)
        payloads[shard.index] = out.clone()

    step.shard_payload = keep  # type: ignore[method-assign,assignment]
    step.partials(0, shards, lambda p, out: tree_all_reduce(comm, p, 4, out=out))
    kept = list(step.lockstep.totals)
    assert kept

    again = step.new_payload()
    nothing = SharedState(save=lambda: None, restore=lambda _: None)
    step.lockstep.run([(2, lambda: original(0, shards[2], again))], replay(kept), nothing)
    assert torch.equal(again, payloads[2])


def test_dropout_masks_differ_between_steps_shards_and_modules() -> None:
    network = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5))
    step_model = nn.Sequential(network, nn.Flatten(), nn.Linear(4, 2))
    step = Step(step_model, seed=0)
    flat, maps = step.model[0]  # type: ignore[index]
    assert isinstance(flat, KeyedDropout)
    ones = torch.ones(64, 8, 4, 4)
    step.model.train()

    def masks(number: int, shard: int) -> tuple[Tensor, Tensor]:
        step.draw.enter(number, shard)
        return flat(ones), maps(ones)

    flat_0, maps_0 = masks(0, 0)
    assert set(flat_0.flatten().tolist()) == {0.0, 2.0}
    assert abs(float(flat_0.mean()) - 1) < 0.05
    whole_maps = maps_0.flatten(2)
    assert torch.equal(whole_maps.amin(2), whole_maps.amax(2))
    assert torch.equal(masks(0, 0)[0], flat_0)
    assert not torch.equal(masks(0, 1)[0], flat_0)
    assert not torch.equal(masks(1, 0)[0], flat_0)
    step.model.eval()
    assert torch.equal(flat(ones), ones)


def test_noise_drawn_by_the_network_itself_is_the_shards_own() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(128, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(nn.functional.dropout(x.flatten(1), 0.5, self.training))  # type: ignore[no-any-return]

    images, labels = samples(32)
    shards = cut(images, labels, 2)
    step = Step(make(Noisy), seed=0)
    one = step.new_payload()
    two = step.new_payload()
    step.shard_payload(0, shards[1], one)
    torch.rand(5)
    step.shard_payload(0, shards[0], two)
    step.shard_payload(0, shards[1], two)
    assert torch.equal(one, two)


def test_parameters_without_a_gradient_and_shared_ones_are_handled() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(128, 128)
            self.tied = nn.Linear(128, 128)
            self.tied.weight = self.used.weight
            self.unused = nn.Parameter(torch.ones(3))
            self.frozen = nn.Parameter(torch.ones(128), requires_grad=False)
            self.out = nn.Linear(128, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.tied(self.used(x.flatten(1) * self.frozen)))  # type: ignore[no-any-return]

    images, labels = samples(8)
    oracle = make(Odd)
    nn.functional.cross_entropy(oracle(images), labels).backward()  # type: ignore[no-untyped-call]
    step = Step(make(Odd), seed=0)
    found = named_gradients(step, whole_step(step, cut(images, labels, 2)))
    assert "frozen" not in found
    assert not found["unused"].any()
    assert isinstance(oracle.used, nn.Linear)
    assert oracle.used.weight.grad is not None
    assert (found["used.weight"] - oracle.used.weight.grad).abs().max() < 1e-12
    assert step.model.tied.weight is step.model.used.weight  # type: ignore[union-attr]
