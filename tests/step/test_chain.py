"""A chain against autograd over the whole network: values, and the gradient of every weight."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sixfold.config import ModelConfig
from sixfold.models import build
from sixfold.step.chain import Chain
from sixfold.step.links import AutogradLink, ConvLink, LinearLink
from sixfold.step.rewrites import fused_max_pool, relu_behind_max_pool


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def by_chain(model: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, list[Tensor]]:
    parameters = trainable(model)
    out = [torch.full_like(p.detach(), torch.nan) for p in parameters]
    chain = Chain(model, parameters)
    y, saved = chain.forward(x)
    chain.backward(saved, grad, out)
    assert saved == [] or chain._first > 0
    return y, out


def by_autograd(model: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, list[Tensor]]:
    y = model(x)
    found = torch.autograd.grad(y, trainable(model), grad, allow_unused=True)
    parameters = trainable(model)
    return y.detach(), [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
    ]


def assert_same(model: nn.Module, x: Tensor, tolerance: float = 1e-12) -> None:
    with torch.no_grad():
        shape = model(x).shape
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    wanted, found = by_autograd(model, x, grad), by_chain(model, x, grad)
    assert torch.equal(wanted[0], found[0])
    for a, b in zip(wanted[1], found[1], strict=True):
        assert (a - b).abs().max() <= tolerance * max(1.0, float(a.abs().max()))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Sequential, Tensor]:
    """A few layers of any kind, some of which have no link of their own."""
    torch.manual_seed(draw(st.integers(0, 100)))
    channels, size = draw(st.sampled_from([1, 2, 4])), draw(st.integers(9, 12))
    x = torch.randn(draw(st.integers(1, 3)), channels, size, size, dtype=torch.float64)
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, channels]))
        layers.append(
            nn.Conv2d(
                channels,
                4,
                kernel,
                stride=draw(st.integers(1, 2)),
                padding=draw(st.integers(0, 2)),
                dilation=draw(st.integers(1, 2)),
                groups=groups if 4 % groups == 0 else 1,
                bias=draw(st.booleans()),
            )
        )
        channels = 4
        extra = draw(st.sampled_from(["relu", "pool", "tanh", "norm", "nested", "none"]))
        kinds: dict[str, list[nn.Module]] = {
            "relu": [nn.ReLU()],
            "pool": [nn.ReLU(), nn.MaxPool2d(2, padding=1)],
            "tanh": [nn.Tanh()],
            "norm": [nn.BatchNorm2d(4), nn.ReLU()],
            "nested": [nn.Sequential(nn.Identity(), nn.Conv2d(4, 4, 1))],
            "none": [],
        }
        layers += kinds[extra]
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5, bias=draw(st.booleans()))]
    model = nn.Sequential(*layers).double()
    try:
        model(x)
    except (RuntimeError, ValueError):  # too small for its kernels, or for a batch-norm
        reject()
    return model, x


@given(convolutions(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_gradients_are_autograds(case: tuple[nn.Sequential, Tensor], rewritten: bool) -> None:
    model, x = case
    if rewritten:
        model = fused_max_pool(relu_behind_max_pool(model))  # type: ignore[assignment]
        x = x.to(memory_format=torch.channels_last)
    assert_same(model, x)


@pytest.mark.parametrize("name", ["slide", "lenet300", "lenet5", "conv2", "vgg16", "resnet20"])
def test_networks_of_the_zoo(name: str) -> None:
    config = ModelConfig(model=name)
    model = build(config, shape=(1, 32, 32), classes=4, seed=0).eval()
    fused_max_pool(relu_behind_max_pool(model))
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert_same(model.double(), x.double(), tolerance=1e-10)


def test_linear_layers_on_more_than_two_dims() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    assert_same(model, torch.randn(2, 4, 6, dtype=torch.float64))


def frozen() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 2, 1))
    model[0].weight.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    return model


def shared() -> nn.Sequential:
    layer = nn.Conv2d(2, 2, 3, padding=1)
    return nn.Sequential(layer, nn.ReLU(), layer)


def unreached() -> nn.Sequential:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x.detach() * 2

    return nn.Sequential(nn.Conv2d(2, 2, 1), Constant(), nn.Conv2d(2, 2, 1))


def same_padding() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding="same"), nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular")
    )


@pytest.mark.parametrize("make", [frozen, shared, unreached, same_padding])
def test_unusual_networks(make: Callable[[], nn.Sequential]) -> None:
    torch.manual_seed(0)
    assert_same(make().double(), torch.randn(2, 2, 6, 6, dtype=torch.float64))


def test_known_layers_have_links_and_the_rest_is_autograds() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Sigmoid(), nn.Flatten(), nn.Linear(8, 2)
    )
    kinds = [type(link).__name__ for link in Chain(model, trainable(model)).links]
    assert kinds == ["ConvLink", "AutogradLink", "FlattenLink", "LinearLink"]
    whole = Chain(model, trainable(model), whole=True)
    assert [type(link) for link in whole.links] == [AutogradLink]


def test_hooks_are_called() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    seen: list[str] = []
    model[1].register_forward_hook(lambda *_: seen.append("forward"))
    chain = Chain(model, trainable(model))
    assert [type(link) for link in chain.links] == [LinearLink, AutogradLink]
    chain.forward(torch.ones(1, 3))
    assert seen == ["forward"]


def test_the_first_layers_input_gradient_is_not_computed() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    chain = Chain(model, trainable(model))
    y, saved = chain.forward(torch.ones(1, 1, 4, 4))
    link = chain.links[0]
    assert isinstance(link, ConvLink)
    out = [torch.empty_like(p) for p in model.parameters()]
    assert link.backward(saved[0], torch.ones(1, 2, 2, 2), out) is None
    assert y.shape == (1, 8)
