"""The weights' gradient of a convolution: the bits of its definition, and autograd's values."""

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
from sixfold.training.native import conv_weights, max_pool

pytestmark = pytest.mark.skipif(
    not conv_weights.is_used(), reason="without the C module, or on another processor"
)

Array = NDArray[Any]


def maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def by_definition(x: Tensor, grad: Tensor, kernel: tuple[int, int], stride: Any, pad: Any) -> Array:
    """(K, C, R, S): a chain over images, rows and columns, all elements at once."""
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    total = np.zeros((grad.shape[1], x.shape[1], *kernel), np.float32)
    for n, image in enumerate(padded):
        for i in range(grad.shape[2]):
            for j in range(grad.shape[3]):
                top, left = i * stride[0], j * stride[1]
                patch = image[:, top : top + kernel[0], left : left + kernel[1]]
                dy = grad.numpy()[n, :, i, j]
                total = fused(patch[None], dy[:, None, None, None], total)
    return total


def by_kernel(x: Tensor, grad: Tensor, kernel: tuple[int, int], stride: Any, pad: Any) -> Tensor:
    out = torch.full((grad.shape[1], x.shape[1], *kernel), torch.nan)
    conv_weights.gradient(x, grad, out, None, stride, pad)
    return out


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, most) for most in (3, 9, 9, 14, 35))),
    kernel=pairs,
    stride=pairs,
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_bits_are_those_of_one_chain_of_fused_additions(
    sizes: tuple[int, ...], kernel: tuple[int, int], stride: Any, pad: Any
) -> None:
    images, height, width, channels, outputs = sizes
    out = [
        (length + 2 * p - k) // s + 1
        for length, p, k, s in zip((height, width), pad, kernel, stride, strict=True)
    ]
    if min(height + 2 * pad[0] - kernel[0], width + 2 * pad[1] - kernel[1]) < 0:
        return
    x, grad = maps(images, channels, height, width), maps(images, outputs, *out, seed=1)
    wanted = by_definition(x, grad, kernel, stride, pad)
    found, bias = torch.empty(outputs, channels, *kernel), torch.empty(outputs)
    conv_weights.gradient(x, grad, found, bias, stride, pad)
    np.testing.assert_array_equal(found.numpy(), wanted)
    pixels = grad.permute(0, 2, 3, 1).reshape(-1, outputs).numpy()
    np.testing.assert_array_equal(bias.numpy(), np.add.accumulate(pixels)[-1])


@pytest.mark.parametrize(
    ("images", "channels", "size", "outputs", "kernel", "stride", "pad"),
    [
        (2, 3, 41, 20, 3, 1, 1),  # blocks of some rows, the last one shorter
        (11, 16, 9, 16, 3, 1, 1),  # blocks of several images, the last one fewer
        (3, 64, 23, 33, 3, 2, 1),
        (2, 1, 64, 32, 11, 3, 2),
        (1, 2, 530, 8, 3, 4, 1),
        (1, 2, 530, 8, 3, 1, 1),  # a row is longer than a block
    ],
)
def test_blocks_give_autograds_gradient(
    images: int, channels: int, size: int, outputs: int, kernel: int, stride: int, pad: int
) -> None:
    """To the last digit: sums of small whole numbers are exact in float32."""
    x = maps(images, channels, size, size).round()
    weight = torch.zeros(outputs, channels, kernel, kernel, dtype=torch.float64)
    y = torch.conv2d(x.double(), weight.requires_grad_(), None, stride, pad)
    grad = maps(*y.shape, seed=1).round()
    (wanted,) = torch.autograd.grad(y, weight, grad.double())
    found = by_kernel(x, grad, (kernel, kernel), (stride, stride), (pad, pad))
    assert torch.equal(found.double(), wanted)


@pytest.mark.parametrize(
    ("images", "channels", "size", "outputs", "kernel", "stride"),
    [
        (31, 3, 32, 32, 5, 1),  # slide
        (25, 16, 32, 16, 3, 1),  # resnet20
        (5, 1, 256, 32, 11, 3),  # cells
        (2, 3, 224, 64, 7, 2),  # resnet50
        (2, 64, 56, 64, 3, 1),
    ],
)
def test_the_zoos_networks_have_the_librarys_bits(
    images: int, channels: int, size: int, outputs: int, kernel: int, stride: int
) -> None:
    """So they have the same with and without the C module."""
    pad = kernel // 2
    x, weight = maps(images, channels, size, size), maps(outputs, channels, kernel, kernel)
    y = torch.conv2d(x, weight, None, stride, pad)
    grad = maps(*y.shape, seed=1)
    geometry = [stride, stride], [pad, pad], [1, 1], False, [0, 0], 1
    _, *wanted = torch.ops.aten.convolution_backward(
        grad, x, weight.contiguous(), [outputs], *geometry, [False, True, True]
    )
    found = [torch.empty(gradient.shape) for gradient in wanted]
    conv_weights.gradient(x, grad, found[0], found[1], [stride, stride], [pad, pad])
    assert all(map(torch.equal, found, wanted))


def test_the_input_is_not_read_or_written_past_its_end() -> None:
    """Narrow tiles read past the last pixel of a panel: never of the maps themselves."""
    x, grad = maps(1, 3, 5, 5), maps(1, 2, 5, 5, seed=1)
    first = by_kernel(x, grad, (3, 3), (1, 1), (1, 1))
    room = torch.full((x.numel() + 16,), torch.nan)
    inside = room[8:-8].view(1, 5, 5, 3).permute(0, 3, 1, 2)
    inside.copy_(x)
    assert torch.equal(by_kernel(inside, grad, (3, 3), (1, 1), (1, 1)), first)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_convolution_uses_it_for_weights_and_keeps_the_librarys_others(wanted: bool) -> None:
    layer = nn.Conv2d(16, 24, 3, padding=1)
    assert layer.bias is not None
    op = ConvOp(layer, Weight(0, layer.weight.detach()), Weight(1, layer.bias.detach()))
    x, grad = maps(4, 16, 12, 12), maps(4, 24, 12, 12, seed=1)
    out = [torch.full_like(layer.weight, torch.nan), torch.full((24,), torch.nan)]
    _, saved = op.forward(x, wanted)
    dx = op.backward(saved, grad, out)
    want = torch.autograd.grad(layer(x.requires_grad_()), [x, layer.weight, layer.bias], grad)
    assert (dx is not None) == wanted
    for found, expected in zip([dx, *out] if wanted else out, want[not wanted :], strict=True):
        assert found is not None
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert torch.equal(out[0], by_kernel(x.detach(), grad, (3, 3), (1, 1), (1, 1)))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="expected 17 arguments, got 2"):
        max_pool.kernels.conv_weights(0, 0)


def test_the_record_of_arithmetic_tells_of_it() -> None:
    from sixfold.training.step.arithmetic import arithmetic, arithmetic_difference

    now = arithmetic()
    before = now | {"weight_gradients": "library"}
    assert "weight gradients library, here conv.inc" in (arithmetic_difference(before, now) or "")
