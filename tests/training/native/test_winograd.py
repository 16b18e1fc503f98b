"""3x3 convolutions with fewer multiplications: their formulas' bits, and autograd's values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.training.native.fused import fused
from torch import Tensor, nn

from sixfold.training.layers.convolution import ConvOp
from sixfold.training.layers.weights import Weight
from sixfold.training.native import winograd

pytestmark = pytest.mark.skipif(
    not winograd.is_used(), reason="without the C module, or without fused multiply-adds"
)

Array = NDArray[Any]


def maps(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def whole(*shape: int, seed: int = 0) -> Tensor:
    """Small whole numbers: every sum is exact in float32, so the order of sums is no matter."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-4, 5, shape, generator=generator).float()
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    y = winograd.empty_output(x, weight, padding).fill_(torch.nan)
    winograd.forward(x, weight, bias, padding, y)
    return y


panels = st.sampled_from([16, 32, 48, 64])
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 3),
    size=st.tuples(st.integers(3, 13), st.integers(3, 13)),
    channels=panels,
    outputs=panels,
    padding=paddings,
    has_bias=st.booleans(),
)
def test_values_and_gradients_are_those_of_the_definition(
    images: int,
    size: tuple[int, int],
    channels: int,
    outputs: int,
    padding: tuple[int, int],
    has_bias: bool,
) -> None:
    x = whole(images, channels, *size)
    weight = whole(outputs, channels, 3, 3, seed=1).contiguous()
    bias = whole(outputs, seed=2) if has_bias else None
    values = [t.double().requires_grad_() for t in (x, weight)]
    own = None if bias is None else bias.double()
    wanted = torch.conv2d(values[0], values[1], own, 1, padding)
    grad = whole(*wanted.shape, seed=3)
    wanted_dx, wanted_dw = torch.autograd.grad(wanted, values, grad.double())
    assert torch.equal(forward(x, weight, bias, padding).double(), wanted)
    assert torch.equal(winograd.input_gradient(grad, weight, x, padding).double(), wanted_dx)
    dw = torch.full_like(weight, torch.nan)
    winograd.weight_gradient(x, grad, dw, padding)
    assert torch.equal(dw.double(), wanted_dw)


@pytest.mark.parametrize(
    ("images", "channels", "outputs", "size"),
    [
        (3, 32, 96, 57),  # several blocks of tiles, the last one shorter
        (70, 32, 16, 32),
        (70, 16, 48, 32),
        (2, 512, 64, 14),
        (1, 64, 64, 130),
    ],
)
def test_blocks_of_tiles_give_the_definitions_gradients(
    images: int, channels: int, outputs: int, size: int
) -> None:
    test = test_values_and_gradients_are_those_of_the_definition.hypothesis.inner_test  # type: ignore[attr-defined]
    test(images, (size, size), channels, outputs, (1, 1), False)


@pytest.mark.parametrize("channels", [64, 256])
def test_float32_is_as_exact_as_the_librarys(channels: int) -> None:
    x, weight = maps(4, channels, 20, 20), maps(64, channels, 3, 3, seed=1).contiguous()
    grad = maps(4, 64, 20, 20, seed=2)
    values = [t.double().requires_grad_() for t in (x, weight)]
    exact = torch.conv2d(values[0], values[1], None, 1, 1)
    exact_dx, exact_dw = torch.autograd.grad(exact, values, grad.double())
    dw = torch.empty_like(weight)
    winograd.weight_gradient(x, grad, dw, (1, 1))
    found = forward(x, weight, None, (1, 1)), winograd.input_gradient(grad, weight, x, (1, 1)), dw
    for ours, wanted in zip(found, (exact, exact_dx, exact_dw), strict=True):
        assert (ours.double() - wanted).abs().max() < 3e-6 * wanted.abs().max()


def by_formulas(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Array:
    """Values of the convolution, with every sum in the order of winograd.inc."""
    w = weight.numpy()
    rows = np.stack(_weights(w[:, :, 0], w[:, :, 1], w[:, :, 2]), 2)  # (K, C, 4, 3)
    u = np.stack(_weights(rows[..., 0], rows[..., 1], rows[..., 2]), 3)
    images, _, height, width = x.shape
    out_h, out_w = height + 2 * padding[0] - 2, width + 2 * padding[1] - 2
    padded = np.pad(
        x.numpy(),
        ((0, 0), (0, 0), (padding[0], padding[0] + 1), (padding[1], padding[1] + 1)),
    )
    y = np.zeros((images, len(w), out_h + 1, out_w + 1), np.float32)
    for top in range(0, out_h, 2):
        for left in range(0, out_w, 2):
            d = padded[:, :, top : top + 4, left : left + 4]
            down = np.stack(_pixels(*np.moveaxis(d, 2, 0)), 2)
            v = np.stack(_pixels(*np.moveaxis(down, 3, 0)), 3)
            m = np.zeros((images, len(w), 4, 4), np.float32)
            for c in range(x.shape[1]):
                m = fused(v[:, None, c], u[None, :, c], m)
            half = (m[:, :, 0] + m[:, :, 1]) + m[:, :, 2], (m[:, :, 1] - m[:, :, 2]) - m[:, :, 3]
            for i, r in enumerate(half):
                y[:, :, top + i, left] = (r[..., 0] + r[..., 1]) + r[..., 2]
                y[:, :, top + i, left + 1] = (r[..., 1] - r[..., 2]) - r[..., 3]
    return y[:, :, :out_h, :out_w]


def _pixels(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    return a - c, b + c, c - b, b - d


def _weights(a: Array, b: Array, e: Array) -> tuple[Array, Array, Array, Array]:
    half = np.float32(0.5)
    return a, ((a + e) + b) * half, ((a + e) - b) * half, e


@pytest.mark.parametrize(("size", "padding"), [((5, 6), (1, 1)), ((4, 7), (0, 2))])
def test_bits_are_those_of_the_formulas(size: tuple[int, int], padding: tuple[int, int]) -> None:
    """So they depend neither on the processor nor on how work is cut into blocks."""
    x, weight = maps(2, 16, *size), maps(48, 16, 3, 3, seed=1).contiguous()
    np.testing.assert_array_equal(
        forward(x, weight, None, padding).numpy(), by_formulas(x, weight, padding)
    )


def test_an_images_bits_do_not_depend_on_the_others_nor_on_the_rows_computed_first() -> None:
    x, weight = maps(40, 64, 17, 16), maps(32, 64, 3, 3, seed=1).contiguous()
    together = forward(x, weight, None, (1, 1))
    alone = forward(x[7:8].contiguous(memory_format=torch.channels_last), weight, None, (1, 1))
    assert torch.equal(together[7:8], alone)
    in_parts = torch.full_like(together, torch.nan)
    for rows in ((4, 10), (0, 4), (10, 17)):
        winograd.forward(x, weight, None, (1, 1), in_parts, rows)
    assert torch.equal(together, in_parts)


def test_the_operation_computes_so_and_gives_autograds_gradients() -> None:
    layer = nn.Conv2d(32, 64, 3, padding=1)
    x, grad = maps(3, 32, 8, 9), maps(3, 64, 8, 9, seed=1)
    op = ConvOp(layer, Weight(0, layer.weight.detach()), Weight(1, layer.bias.detach()))  # type: ignore[union-attr]
    y, saved = op.forward(x, True)
    assert saved.way == "winograd"
    out = [torch.empty_like(p) for p in layer.parameters()]
    dx = op.backward(saved, grad, out)
    in_two = op.backward_in_two(saved, grad, out_in_two := [torch.empty_like(p) for p in out])
    assert in_two is not None
    assert dx is not None
    in_two[1]()
    assert torch.equal(in_two[0], dx)
    assert all(torch.equal(a, b) for a, b in zip(out, out_in_two, strict=True))
    layer = layer.double()
    x = x.double().requires_grad_()
    wanted = layer(x)
    gradients = torch.autograd.grad(wanted, [x, *layer.parameters()], grad.double())
    for found, exact in zip([y, dx, *out], [wanted, *gradients], strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(32, 32, 3, stride=2, padding=1), (3, 32, 8, 8)),
        (nn.Conv2d(32, 32, 3, dilation=2, padding=2), (3, 32, 8, 8)),
        (nn.Conv2d(32, 32, 3, groups=2, padding=1), (3, 32, 8, 8)),
        (nn.Conv2d(40, 32, 3, padding=1), (3, 40, 8, 8)),
        (nn.Conv2d(16, 32, 3, padding=1), (3, 16, 8, 8)),
        (nn.Conv2d(32, 32, (3, 1)), (3, 32, 8, 8)),
        (nn.Conv2d(32, 32, 3, padding=1), (1, 32, 2, 2)),  # a single tile
        (nn.Conv2d(32, 32, 3, padding=1).double(), (3, 32, 8, 8)),
        (nn.Conv2d(32, 32, 3, padding=1).bfloat16(), (3, 32, 8, 8)),
    ],
)
def test_other_convolutions_are_left_to_others(layer: nn.Conv2d, shape: tuple[int, ...]) -> None:
    x = maps(*shape).to(layer.weight.dtype)
    op = ConvOp(layer, Weight(0, layer.weight.detach()), None)
    assert op.forward(x, True)[1].way != "winograd"
