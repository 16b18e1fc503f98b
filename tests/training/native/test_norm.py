"""Batch-norm with the activation behind it: torch's values and gradients, and equal bits from C
and NumPy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sixfold.training.native import max_pool, norm
from sixfold.training.native.max_pool import is_built

needs_c = pytest.mark.skipif(not is_built(), reason="the C module was not built here")

ACTS = {norm.NONE: nn.Identity(), norm.RELU: nn.ReLU(), norm.RELU6: nn.ReLU6()}


def maps(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0, mean: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(shape, generator=generator, dtype=torch.float64) + mean
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def channel_values(channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5
    bias = torch.randn(channels, generator=generator, dtype=torch.float64)
    return weight.to(wide), bias.to(wide)


def ours(x: Tensor, grad: Tensor, act: int) -> list[Tensor]:
    weight, bias = channel_values(x.shape[1], x.dtype)
    y, saved, found = norm.forward(x, weight.numpy(), bias.numpy(), 1e-5, act)
    dx, dw, db = norm.backward(saved, grad)
    return [y, dx, *(torch.from_numpy(a) for a in (dw, db, found.mean, found.var))]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("channels", [1, 3, 16, 24, 100])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-4)], ids=str
)
def test_values_and_gradients_are_torchs(
    act: int, channels: int, dtype: torch.dtype, tolerance: float
) -> None:
    x, grad = maps((3, channels, 9, 7), dtype), maps((3, channels, 9, 7), dtype, seed=2)
    weight, bias = channel_values(channels, dtype)
    layer = nn.BatchNorm2d(channels, momentum=None).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    given_x = x.clone().requires_grad_()
    y = ACTS[act](layer(given_x))
    wanted = torch.autograd.grad(y, [given_x, layer.weight, layer.bias], grad)
    found = ours(x, grad, act)
    for mine, theirs in zip(found[:4], [y.detach(), *wanted], strict=True):
        torch.testing.assert_close(
            mine.double(), theirs.double(), rtol=tolerance, atol=10 * tolerance
        )
    assert layer.running_mean is not None
    torch.testing.assert_close(
        found[4], layer.running_mean.double(), rtol=tolerance, atol=tolerance
    )


def test_the_variance_of_values_far_from_zero_keeps_its_digits() -> None:
    x = maps((8, 4, 16, 16), torch.float32, mean=10_000.0)
    _, _, found = norm.forward(x, np.ones(4, np.float32), np.zeros(4, np.float32), 1e-5, norm.NONE)
    wanted = x.double().var((0, 2, 3), correction=0).numpy()
    np.testing.assert_allclose(found.var, wanted, rtol=1e-5)


@needs_c
@given(
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.sampled_from(list(ACTS)),
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(2, 12),
)
def test_without_the_c_module_the_bits_are_the_same(
    dtype: torch.dtype, act: int, channels: int, images: int, height: int, width: int
) -> None:
    shape = (images, channels, height, width)
    x, grad = maps(shape, dtype), maps(shape, dtype, seed=3)
    by_c = ours(x, grad, act)
    built, max_pool.kernels = max_pool.kernels, None
    try:
        by_numpy = ours(x, grad, act)
    finally:
        max_pool.kernels = built
    for one, other in zip(by_c, by_numpy, strict=True):
        assert torch.equal(one, other)


@needs_c
@pytest.mark.parametrize("act", ACTS)
def test_a_build_that_knows_parts_of_a_pass_only_has_the_same_bits(
    act: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, grad = maps((3, 20, 9, 7), torch.float32), maps((3, 20, 9, 7), torch.float32, seed=3)
    whole = ours(x, grad, act)
    monkeypatch.setattr(max_pool, "kernels", SimpleNamespace(norm=max_pool.kernels.norm))
    for one, other in zip(whole, ours(x, grad, act), strict=True):
        assert torch.equal(one, other)


@needs_c
def test_the_kernel_refuses_calls_it_cannot_read() -> None:
    with pytest.raises(TypeError, match="expected 11 arguments, got 1"):
        max_pool.kernels.norm_forward(4)
    with pytest.raises(ValueError, match="float32 or float64"):
        max_pool.kernels.norm_backward(3, *[0] * 12)
    with pytest.raises(TypeError):
        max_pool.kernels.norm_forward(4, *[0] * 9, "eps")


@pytest.mark.parametrize("act", ACTS)
def test_a_nan_is_passed_on(act: int) -> None:
    x = maps((2, 3, 4, 4), torch.float32)
    x[1, 1, 2, 2] = float("nan")
    y, dx, *_ = ours(x, torch.ones_like(x), act)
    assert y[:, 1].isnan().all()
    assert dx[:, 1].isnan().all()
    assert not y[:, [0, 2]].isnan().any()


def test_bfloat16_is_within_its_precision() -> None:
    x, grad = maps((4, 24, 8, 8), torch.bfloat16), maps((4, 24, 8, 8), torch.bfloat16, seed=5)
    narrow = ours(x, grad, norm.RELU)
    wide = ours(x.float(), grad.float(), norm.RELU)
    for one, other in zip(narrow[:2], wide[:2], strict=True):
        torch.testing.assert_close(one.float(), other, rtol=2**-7, atol=1e-4)
    for one, other in zip(narrow[2:], wide[2:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_does_not_suit() -> None:
    assert norm.suits(maps((2, 3, 4, 4), torch.float32))
    assert not norm.suits(torch.zeros(2, 3, 4, 4))
    assert not norm.suits(torch.zeros(1, 3, 1, 1))
    assert not norm.suits(torch.zeros(4, 3))
