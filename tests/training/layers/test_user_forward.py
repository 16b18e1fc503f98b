"""Modules with a forward of their own, as graphs of links, against plain autograd."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.layers.test_executor import assert_same, by_autograd, trainable
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the users' name

from sixfold.training.config import TrainConfig, TrainingConfig
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.layers.multi_input import AddOp, SequenceOp
from sixfold.training.layers.operations import AutogradOp, MaxPoolOp
from sixfold.training.layers.rewrites import fused_max_pool, relu_behind_max_pool
from sixfold.training.layers.user_forward import GraphExecutor
from sixfold.training.native.max_pool import MaxPoolReLU2d
from sixfold.training.step.step import Shard, Step, channels_last, open_step


def images(n: int = 3, channels: int = 3, size: int = 8) -> Tensor:
    x = torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))
    return x.double().to(memory_format=torch.channels_last)


def graph_of(model: nn.Module, x: Tensor) -> tuple[GraphExecutor, LayerExecutor]:
    """The link of a network that is one graph, tried out."""
    executor = LayerExecutor(model, trainable(model))
    (link,) = executor.links
    assert isinstance(link, GraphExecutor), executor.left
    executor.forward(x)
    return link, executor


def links_of(link: GraphExecutor) -> list[str]:
    """What runs, stage by stage."""
    return [
        "+".join(type(inner).__name__ for inner in node.join.run.links)
        if isinstance(node.join, SequenceOp)
        else type(node.join).__name__
        for node in link.nodes
    ]


class Residual(nn.Module):
    """As most people write it."""

    def __init__(self, before: int, maps: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, maps, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.relu = nn.ReLU(inplace=True)
        self.down: nn.Module | None = None
        if stride > 1 or before != maps:
            self.down = nn.Sequential(
                nn.Conv2d(before, maps, 1, stride, bias=False), nn.BatchNorm2d(maps)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.down is not None:
            identity = self.down(x)
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.first, self.second = Residual(8, 8), Residual(8, 16, 2)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(16 + 16, 5)
        self.spare = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        x = self.second(self.first(x))
        x = self.pool(F.relu(x))
        x = torch.cat([F.avg_pool2d(x, 2), F.adaptive_max_pool2d(x, 1)], dim=1)
        return self.fc(x.view(x.size(0), -1))  # type: ignore[no-any-return]


def test_a_residual_network_by_its_forward() -> None:
    torch.manual_seed(0)
    model = fused_max_pool(relu_behind_max_pool(ResNet().double()))
    link, executor = graph_of(model, images())
    assert executor.autograd_fallback() == []
    block = "ConvOp+NormOp+ConvOp+NormOp"
    assert links_of(link) == [
        "ConvOp+NormOp",
        block,
        "AddOp",
        block,
        "ConvOp+NormOp",
        "AddOp",
        "MaxPoolOp",
        "AveragePoolOp",
        "AutogradOp",
        "ConcatenateOp",
        "FlattenOp+LinearOp",
    ]
    sums = [node.join for node in link.nodes if isinstance(node.join, AddOp)]
    assert all(join.relu for join in sums)
    pooled = link.nodes[6].join
    assert isinstance(pooled, SequenceOp)
    assert isinstance(pooled.run.links[0], MaxPoolOp)
    assert pooled.run.links[0]._layer.relu  # F.relu and self.pool are one kernel
    wanted = _contiguous(model)
    found = LayerExecutor(model, trainable(model))
    out = [torch.full_like(p, torch.nan) for p in trainable(model)]
    y, saved = found.forward(images())
    found.backward(saved, torch.ones_like(y), out)
    torch.testing.assert_close(y, wanted[0], rtol=1e-12, atol=1e-12)
    for a, b in zip(out, wanted[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def _contiguous(model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """By autograd, on images in the order in which `view` works."""
    return by_autograd(model, images().contiguous(), torch.ones(3, 5, dtype=torch.float64))


Op = tuple[str, int, int]


def swapped(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return torch.cat((second, first), 1)


def largest(x: Tensor) -> Tensor:
    values, _ = torch.max(x, 1, keepdim=True)
    return values


class Program(nn.Module):
    """A graph of calls over maps of one size, from a list of operations."""

    def __init__(self, ops: list[Op], ending: str) -> None:
        super().__init__()
        self.ops, self.ending = ops, ending
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        for number, (kind, _, _) in enumerate(ops):
            if kind in ("conv", "branch"):
                self.add_module(f"conv{number}", nn.Conv2d(4, 4, 3, padding=1, bias=number % 2 > 0))
            elif kind in ("cat", "gate"):
                width = 8 if kind == "cat" else 4
                self.add_module(f"conv{number}", nn.Conv2d(width, 4, 1))
            elif kind == "norm":
                self.add_module(f"norm{number}", nn.BatchNorm2d(4))
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4 * 36 if ending in ("view", "flatten", "reshape") else 4, 3)

    def extra_repr(self) -> str:
        return f"{self.ops}, {self.ending!r}"

    def forward(self, x: Tensor) -> Tensor:
        values = [self.stem(x)]
        scaled = False
        for number, (kind, first, second) in enumerate(self.ops):
            a, b = values[first % len(values)], values[second % len(values)]
            own = getattr(self, f"conv{number}", None) or getattr(self, f"norm{number}", None)
            if kind in ("conv", "norm"):
                assert own is not None
                y = own(a)
            elif kind == "scale":
                y = a if scaled else a * self.scale
                scaled = True
            elif kind == "branch":
                assert own is not None
                y = F.relu(own(a)) + b
            elif kind == "cat":
                assert own is not None
                y = own(torch.cat((a, b), 1))
            elif kind == "gate":
                assert own is not None
                y = a * torch.sigmoid(own(F.adaptive_avg_pool2d(b, 1)))
            else:
                y = self.simple(kind, a, b)
            values.append(y)
        for value in values[1:-1]:  # what nobody takes would be thrown away
            values[-1] = values[-1] + value
        return self.end(values[-1])

    def simple(self, kind: str, a: Tensor, b: Tensor) -> Tensor:
        calls: dict[str, Callable[[], Tensor]] = {
            "relu": lambda: F.relu(a),
            "method": lambda: a.relu(),
            "module": lambda: self.relu(a),
            "place": lambda: F.relu(a * 1.5, inplace=True),
            "pool": lambda: F.max_pool2d(F.relu(a), 3, 1, 1),
            "pool first": lambda: F.relu(F.max_pool2d(a, 3, stride=1, padding=1)),
            "average": lambda: F.avg_pool2d(a, 3, stride=1, padding=1),
            "add": lambda: torch.add(a, b),
            # Not a - b, which is 0 for a value and itself: what follows would hang on rounding.
            "sub": lambda: a - 0.5 * b,
            "tanh": lambda: torch.tanh(a),
            "shape": lambda: a.reshape(a.shape[0], 4, a.size(2), a.shape[3]),
            "size": lambda: F.interpolate(a, size=b.shape[2:]),
            "stop": lambda: a + b.detach(),
            "chunk": lambda: swapped(a),
            "unpack": lambda: largest(a) + b,
            "leaky": lambda: F.leaky_relu(a * 1.5, 0.1, inplace=True),
            "times": lambda: (a + 1.0).mul_(b),
        }
        return calls[kind]()

    def end(self, x: Tensor) -> Tensor:
        calls: dict[str, Callable[[], Tensor]] = {
            "view": lambda: x.contiguous().view(x.size(0), -1),
            "reshape": lambda: x.reshape((x.shape[0], -1)),
            "flatten": lambda: torch.flatten(x, 1),
            "mean": lambda: x.mean(dim=(2, 3)),
            "adaptive": lambda: F.adaptive_avg_pool2d(x, (1, 1)).flatten(1),
        }
        y: Tensor = self.fc(calls[self.ending]())
        return y


KINDS = [
    "conv", "norm", "scale", "branch", "cat", "gate", "relu", "method", "module", "place", "pool",
    "pool first", "average", "add", "sub", "tanh", "shape", "size", "stop", "chunk", "unpack",
    "leaky", "times",
]  # fmt: skip
ENDINGS = ["view", "reshape", "flatten", "mean", "adaptive"]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    places = st.integers(0, 5)
    ops = draw(st.lists(st.tuples(st.sampled_from(KINDS), places, places), max_size=6))
    torch.manual_seed(draw(st.integers(0, 100)))
    return Program(ops, draw(st.sampled_from(ENDINGS))).double()


@given(programs())
def test_gradients_of_any_graph_are_autograds(model: Program) -> None:
    link, _ = graph_of(model, images(size=6))
    assert link.refused is None
    assert_same(model, images(size=6))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["view", "mean"])
def test_every_kind_of_call_is_followed(kind: str, ending: str) -> None:
    torch.manual_seed(0)
    model = Program([(kind, 0, 0), ("branch", 1, 0), (kind, 2, 1)], ending).double()
    graph_of(model, images(size=6))
    assert_same(model, images(size=6))


class Small(nn.Module):
    """A forward that is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.steps = 0
        self.seen: list[Any] = []
        self.register_buffer("calls", torch.zeros(1, dtype=torch.float64))
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def counted(self: Any, x: Tensor) -> Tensor:
    self.steps += 1
    return self.conv(x) * (1.0 + self.steps)  # type: ignore[no-any-return]


def remembered(self: Any, x: Tensor) -> Tensor:
    self.seen.append(self.conv(x))
    return self.seen[-1].relu()  # type: ignore[no-any-return]


def counted_in_a_buffer(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    return self.conv(x) * self.calls  # type: ignore[no-any-return]


def noisy(self: Any, x: Tensor) -> Tensor:
    return self.conv(x) + torch.rand(1).double()  # type: ignore[no-any-return]


def skipping(self: Any, x: Tensor) -> Tensor:
    return self.conv(x) if random.random() < 2 else x


def decided(self: Any, x: Tensor) -> Tensor:
    return self.conv(x) if x.mean() < 100 else x


def twice(self: Any, x: Tensor) -> Tensor:
    return self.conv(x[:, :3]) + self.conv(x)  # type: ignore[no-any-return]


def changed_later(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    z = y.flatten(2)
    F.relu(y, inplace=True)
    return z + z.relu()  # type: ignore[no-any-return]


def thrown_away(self: Any, x: Tensor) -> Tensor:
    self.norm(x)
    return self.conv(x)  # type: ignore[no-any-return]


def stopped_norm(self: Any, x: Tensor) -> Tensor:
    self.norm.eval()
    return self.norm(self.conv(x))  # type: ignore[no-any-return]


def asks_for_tensors(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    return y.relu() if isinstance(y, Tensor) else y


def without_gradient(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = self.norm(self.conv(x))
    return y + self.conv.weight.sum()  # type: ignore[no-any-return]


def changed_sum(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    before = y
    y += 1.0
    return before + y  # type: ignore[no-any-return]


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "an attribute": (counted, "changes the attribute 'steps'"),
    "a list": (remembered, "changes the attribute 'seen'"),
    "a buffer": (counted_in_a_buffer, "changes a buffer"),
    "noise": (noisy, "draws random numbers"),
    "chance": (skipping, "draws random numbers"),
    "a decision": (decided, "control flow"),
    "weights used twice": (twice, "uses weights more than once"),
    "in place": (changed_later, "does not use what it computes"),
    "a result for nobody": (thrown_away, "does not use what it computes"),
    "another mode": (stopped_norm, "calls train() or eval() of 'norm'"),
    "isinstance": (asks_for_tensors, "computes something else"),
    "no_grad": (without_gradient, "weights more than once"),
    "a sum in place": (changed_sum, "computes something else"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_does_not_hold_is_left_to_autograd(name: str) -> None:
    forward, why = REFUSED[name]
    torch.manual_seed(0)
    model = nn.Sequential(
        Small(forward, norm=nn.BatchNorm2d(3 if name == "a result for nobody" else 4)),
        nn.Flatten(), nn.Linear(4 * 36, 3),
    ).double()  # fmt: skip
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before = random.getstate(), torch.get_rng_state()
    executor = LayerExecutor(model, trainable(model))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model[0].steps == 0
    assert model[0].seen == []
    assert not [key for key in vars(model[0]) if key.startswith("_tensor_constant")]
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    y, _ = executor.forward(images(size=6))
    (line,) = executor.autograd_fallback()
    assert line.startswith("0: ")
    assert why in line
    assert executor.needs_autograd
    model.load_state_dict(state)
    vars(model[0])["steps"] = 0
    if name not in ("noise",):
        torch.testing.assert_close(y, model(images(size=6)).detach(), rtol=1e-12, atol=1e-12)


def no_grad_around_a_norm(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = self.norm(x)
    return self.conv(y) + 1.0  # type: ignore[no-any-return]


def test_gradients_that_differ_are_found_before_they_are_used() -> None:
    model = Small(no_grad_around_a_norm, norm=nn.BatchNorm2d(3)).double()
    executor = LayerExecutor(model, trainable(model))
    before = [buffer.clone() for buffer in model.buffers()]
    executor.links[0].settle(images())  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert executor.autograd_fallback() == ["Small: read without values it has other gradients"]
    assert_same(model, images())


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() < 1e9 else x


def test_a_part_that_cannot_be_followed_is_one_call_of_the_graph() -> None:
    model = Small(lambda self, x: self.odd(self.conv(x)) + self.conv2(x), odd=Odd()).double()
    model.conv2 = nn.Conv2d(3, 4, 3, padding=1).double()
    link, executor = graph_of(model, images())
    assert links_of(link) == ["ConvOp+AutogradOp", "ConvOp", "AddOp"]
    assert [line.partition(" (")[0] for line in executor.autograd_fallback()] == [
        "odd: symbolically traced variables cannot be used as inputs to control flow"
    ]
    assert_same(model, images())


def test_the_graph_holds_in_the_mode_in_which_it_was_read() -> None:
    def dropping(self: Any, x: Tensor) -> Tensor:
        return F.dropout(self.norm(self.conv(x)).relu(), 0.5, self.training)

    model = Small(dropping).double()
    link, executor = graph_of(model, images())
    assert link.holds
    model.eval()
    assert not link.holds
    assert executor.needs_autograd
    assert_same(model, images())  # nothing is dropped
    model.train()
    assert link.holds


def test_random_numbers_are_drawn_as_the_forward_draws_them() -> None:
    def dropping(self: Any, x: Tensor) -> Tensor:
        a, b = self.conv(x), self.other(x)
        right = F.dropout(b, 0.5)
        return F.dropout(a, 0.25) + right

    model = Small(dropping, other=nn.Conv2d(3, 4, 1)).double()
    _, executor = graph_of(model, images())
    torch.manual_seed(4)
    found = executor.forward(images())[0]
    torch.manual_seed(4)
    torch.testing.assert_close(found, model(images()).detach(), rtol=1e-12, atol=1e-12)


def test_buffers_move_as_by_autograd() -> None:
    torch.manual_seed(1)
    model = ResNet().double()
    executor = LayerExecutor(model, trainable(model))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(3):
        executor.forward(images())
    found = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(before)
    for _ in range(3):
        model(images().contiguous())
    for key, value in model.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12)


def test_hooks_within_a_graph_are_called() -> None:
    model = ResNet().double()
    seen: list[str] = []
    model.first.register_forward_hook(lambda *_: seen.append("block"))
    model.second.conv1.register_forward_hook(lambda *_: seen.append("layer"))
    _, executor = graph_of(model, images())
    seen.clear()
    executor.forward(images())
    assert seen == ["block", "layer"]


class Viewing(nn.Module):
    """`view` fails on images in the order N H W C, wherever autograd runs it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        assert y.mean() < 1e9  # not to be followed
        return self.fc(y.view(len(y), -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_needs_contiguous_images_gets_them(channels: int) -> None:
    torch.manual_seed(0)
    model = Viewing(channels).double()
    executor = LayerExecutor(model, trainable(model))
    assert [type(link) for link in executor.links] == [AutogradOp]
    given = images(channels=channels)
    plain = torch.empty(given.shape, dtype=given.dtype).copy_(given)
    y, _ = executor.forward(channels_last(plain))
    assert int(model.norm.num_batches_tracked) == 1  # type: ignore[arg-type]
    torch.testing.assert_close(y, model(plain).detach())


def test_activations_in_place_do_not_spoil_what_was_kept() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1, inplace=True), nn.Conv2d(4, 2, 1),
        nn.Tanh(), nn.Conv2d(2, 2, 1), nn.ELU(inplace=True),
    ).double()  # fmt: skip
    assert_same(model, images())


def payload(model: nn.Module, config: TrainConfig, shards: list[int]) -> list[Tensor]:
    """What each shard contributes, whoever computes it."""
    step: Step = open_step(model, config, (3, 8, 8))
    found = []
    for index in shards:
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(index))
        out = step.new_payload()
        step.shard_payload(3, Shard(index=index, images=x, labels=torch.arange(4)), out)
        found.append(out)
    assert isinstance(step.executor.links[0], GraphExecutor)
    assert step.executor.links[0].holds
    return found


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_shard_has_the_same_bits_on_every_rank(precision: Any) -> None:
    config = TrainConfig(training=TrainingConfig(precision=precision))

    def make() -> nn.Module:
        torch.manual_seed(0)
        return Dropping()

    one = payload(make(), config, [0, 1, 2])
    other = payload(make(), config, [2]) + payload(make(), config, [1, 0])
    assert torch.equal(one[2], other[0])
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[0], other[2])
    assert not torch.equal(one[0], one[1])


class Dropping(ResNet):
    """Dropout by a layer, keyed, and by a function, seeded for the shard."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.drop(super().forward(x)), 0.2, self.training)


def test_pools_that_are_watched_are_not_fused() -> None:
    model = Small(lambda self, x: self.pool(F.relu(self.conv(x))), pool=nn.MaxPool2d(2)).double()
    pool = fused_max_pool(model).pool
    assert isinstance(pool, MaxPoolReLU2d)
    pool.register_forward_hook(lambda *_: None)
    link, _ = graph_of(model, images())
    assert links_of(link) == ["ConvOp+ReLUOp+AutogradOp"]


def test_a_forward_that_knows_its_samples_is_tried_with_so_many() -> None:
    def fixed(self: Any, x: Tensor) -> Tensor:
        return self.conv(x).reshape(12, -1) * 2.0  # type: ignore[no-any-return]

    model = Small(fixed).double()
    link, _ = graph_of(model, images(n=12))
    assert link.refused is None
    assert_same(model, images(n=12))
