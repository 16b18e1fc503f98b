"""Watching a step: no bit changes, every layer is seen, and the times add up."""

import time

import pytest
import torch
from torch import Tensor, nn

from sixfold.models.building import build
from sixfold.models.config import ModelConfig
from sixfold.perf.profile.clock import BACKWARD, FORWARD, GRADIENTS, Clock, Span
from sixfold.perf.profile.layers import layer_costs
from sixfold.training.layers.operations import AutogradOp
from sixfold.training.layers.user_forward import GraphExecutor
from sixfold.training.step.norm_sync import has_batch_norm
from sixfold.training.step.step import Shard, Step


def step_of(name: str, *, sync: bool = False) -> tuple[Step, Shard]:
    model = build(ModelConfig(model=name), shape=(3, 32, 32), classes=10, seed=0)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    shard = Shard(index=0, images=images, labels=torch.arange(4))
    return Step(model, seed=0, sync_norms=sync and has_batch_norm(model)), shard


def watched(step: Step, shard: Shard, *, operators: bool = False) -> tuple[Clock, Tensor, float]:
    clock, out = Clock(step, operators=operators), step.new_payload()
    with clock.attached():
        begin = time.perf_counter()
        step.shard_payload(0, shard, out)
        seconds = time.perf_counter() - begin
    return clock, out, seconds


@pytest.mark.parametrize("operators", [False, True])
@pytest.mark.parametrize(
    "name", ["slide", "resnet20", "conv2", pytest.param("vgg16", marks=pytest.mark.full)]
)
def test_no_bit_changes_and_nothing_is_left_behind(name: str, operators: bool) -> None:
    step, shard = step_of(name)
    expected = step.new_payload()
    step.shard_payload(0, shard, expected)
    links = list(step.executor.run.links)
    _, found, _ = watched(step, shard, operators=operators)
    assert torch.equal(expected, found)
    assert step.executor.run.links == links
    assert "shard_payload" not in vars(step)
    assert "forward" not in vars(step.executor)
    assert not any(module._forward_hooks for module in step.model.modules())


@pytest.mark.parametrize(
    "name", ["slide", "resnet20", "mobilenet_v2", pytest.param("vgg16", marks=pytest.mark.full)]
)
def test_every_layer_that_costs_something_is_timed(name: str) -> None:
    step, shard = step_of(name)
    clock, _, _ = watched(step, shard)
    layers = [cost for cost in layer_costs(step.model, (3, 32, 32), 4) if cost.flops]
    for direction, flops in ((FORWARD, "forward_flops"), (BACKWARD, "backward_flops")):
        timed = {span.layer for span in clock.spans if span.direction == direction}
        as_one = {name for names in clock.groups.values() for name in names[1:]}
        expected = {cost.name for cost in layers if getattr(cost, flops)} - {"loss"} - as_one
        assert not expected - timed
        assert as_one <= {cost.name for cost in layers}


@pytest.mark.parametrize("operators", [False, True])
@pytest.mark.parametrize("name", ["slide", "resnet20"])
def test_the_times_add_up_to_the_whole(name: str, operators: bool) -> None:
    step, shard = step_of(name)
    watched(step, shard, operators=operators)  # what happens once only
    clock, _, seconds = watched(step, shard, operators=operators)
    layers = sum(span.seconds for span in clock.spans if not span.function)
    assert 0.7 * seconds < layers <= seconds


def test_operators_lie_within_their_layers() -> None:
    step, shard = step_of("vgg16")
    clock, _, _ = watched(step, shard, operators=True)
    whole: dict[tuple[str, str], list[Span]] = {}
    for span in clock.spans:
        if not span.function:
            whole.setdefault((span.layer, span.direction), []).append(span)
    for span in clock.spans:
        if span.function and span.layer not in (GRADIENTS,):
            around = whole[span.layer, span.direction]
            assert any(a.begin <= span.begin and span.end <= a.end for a in around), span
    linear = [s for s in clock.spans if s.function == "aten::addmm" and s.direction == FORWARD]
    assert len(linear) >= sum(isinstance(m, nn.Linear) for m in step.model.modules())


def test_shards_that_advance_together_are_told_apart() -> None:
    step, shard = step_of("resnet20", sync=True)
    second = Shard(index=1, images=shard.images + 1, labels=shard.labels)

    def total_sum(partials: list, out: object) -> object:  # type: ignore[type-arg]
        from sixfold.distributed.collectives import tree_all_reduce
        from sixfold.distributed.process_group.communicator import alone

        return tree_all_reduce(alone(), partials, 2, out=out)  # type: ignore[arg-type]

    clock = Clock(step)
    with clock.attached():
        step.partials(0, [shard, second], total_sum)  # type: ignore[arg-type]
    stem = [span for span in clock.spans if span.layer == "stem.0"]
    assert [span.direction for span in stem].count(FORWARD) == 2
    assert [span.direction for span in stem].count(BACKWARD) == 2


class Wild(nn.Module):
    """A forward of its own, which can be followed or not."""

    def __init__(self, *, decides: bool = False) -> None:
        super().__init__()
        self.decides = decides
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 32 * 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.decides and x.isnan().any():
            y = y + 1
        logits: Tensor = self.head((torch.tanh(y) + y).flatten(1))
        return logits


@pytest.mark.parametrize("decides", [False, True])
def test_a_users_own_network_is_timed_function_by_function(decides: bool) -> None:
    torch.manual_seed(0)
    step = Step(Wild(decides=decides), seed=0)
    assert [type(link) for link in step.executor.links] == [
        AutogradOp if decides else GraphExecutor
    ]
    _, shard = step_of("slide")
    expected = step.new_payload()
    step.shard_payload(0, shard, expected)
    clock, found, _ = watched(step, shard)
    assert torch.equal(expected, found)
    timed = {(span.layer, span.direction) for span in clock.spans}
    assert not any(module._forward_hooks for module in step.model.modules())
    for name in ("conv", "tanh", "add", "flatten", "head"):
        assert (name, FORWARD) in timed
        assert (name, BACKWARD) in timed


def test_a_failing_layer_leaves_the_step_as_it_was() -> None:
    step, shard = step_of("resnet20")
    wrong = Shard(index=0, images=shard.images[:, :2], labels=shard.labels)
    with pytest.raises(RuntimeError):
        watched(step, wrong)
    expected, again = step.new_payload(), step.new_payload()
    step.shard_payload(0, shard, expected)
    _, again, _ = watched(step, shard)
    assert torch.equal(expected, again)
