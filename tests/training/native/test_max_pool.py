"""The C kernel against torch's own max-pool and ReLU: equal bits, forward and backward."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sixfold.training.native import max_pool
from sixfold.training.native.max_pool import MaxPoolReLU2d, is_built

needs_c = pytest.mark.skipif(not is_built(), reason="the C module was not built here")


def both(pool: nn.MaxPool2d, x: Tensor, *, relu: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Value and input gradient of torch's kernels, and of ours."""
    sides = []
    for network in (
        nn.Sequential(pool, nn.ReLU()) if relu else pool,
        MaxPoolReLU2d(pool, relu=relu),
    ):
        given_x = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = network(given_x)
        grad = torch.arange(1, y.numel() + 1, dtype=x.dtype).view(y.shape)
        (x_grad,) = torch.autograd.grad(y, given_x, grad)
        sides.append([y.detach(), x_grad])
    return sides[0], sides[1]


def assert_equal(pool: nn.MaxPool2d, x: Tensor, *, relu: bool) -> None:
    for wanted, found in zip(*both(pool, x, relu=relu), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[nn.MaxPool2d, Tensor]:
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    pool = nn.MaxPool2d(
        (kernel[0], kernel[1]),
        stride=(draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        padding=(draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))),
        dilation=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        ceil_mode=draw(st.booleans()),
    )
    channels = draw(st.sampled_from([1, 3, 8, 11, 16, 20]))
    height, width = draw(st.integers(10, 14)), draw(st.integers(10, 14))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    x = torch.randint(
        -3, 4, (draw(st.integers(1, 3)), channels, height, width), generator=generator
    )
    out = torch.empty(
        x.shape,
        dtype=draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])),
        memory_format=torch.channels_last,
    )
    return pool, out.copy_(x)


@given(cases(), st.booleans())
def test_any_window_gives_torchs_bits(case: tuple[nn.MaxPool2d, Tensor], relu: bool) -> None:
    pool, x = case
    assert_equal(pool, x, relu=relu)


@pytest.mark.parametrize("relu", [False, True])
def test_nan_and_infinities_pass_as_in_torch(relu: bool) -> None:
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), -1.0, 0.0, -0.0, 2.0])
    generator = torch.Generator().manual_seed(1)
    x = values[torch.randint(0, 7, (4, 9, 12, 12), generator=generator)]
    x = x.contiguous(memory_format=torch.channels_last)
    for pool in (nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)):
        assert_equal(pool, x, relu=relu)


@needs_c
def test_the_c_module_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            calls.append(name)
            return getattr(kernels, name)

    kernels = max_pool.kernels
    monkeypatch.setattr(max_pool, "kernels", Counting())
    both(nn.MaxPool2d(2), torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last), relu=True)
    assert calls == ["max_pool_forward", "max_pool_backward"]


def test_without_the_c_module_torch_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    with_c = both(nn.MaxPool2d(2), x, relu=True)[1]
    monkeypatch.setattr(max_pool, "kernels", None)
    without = both(nn.MaxPool2d(2), x, relu=True)[1]
    assert all(torch.equal(a, b) for a, b in zip(with_c, without, strict=True))


def test_a_window_larger_than_the_input_is_refused_by_torch() -> None:
    x = torch.randn(1, 2, 3, 3).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="Output size is too small"):
        MaxPoolReLU2d(nn.MaxPool2d(5), relu=False)(x)


@needs_c
def test_the_kernel_refuses_calls_it_cannot_read() -> None:
    with pytest.raises(TypeError, match="expected 19 arguments"):
        max_pool.kernels.max_pool_forward(4, 0)
    with pytest.raises(ValueError, match="float32 or float64"):
        max_pool.kernels.max_pool_forward(3, *[0] * 18)


def test_fx_traces_it_as_torchs_functions() -> None:
    graph = torch.fx.symbolic_trace(MaxPoolReLU2d(nn.MaxPool2d(2), relu=True)).graph
    assert next(iter(graph.nodes)).op == "placeholder"
    assert "relu" in str(graph)
