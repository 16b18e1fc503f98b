"""Sparse layers against the dense ones they replace, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sixfold.prediction.sparse.layers import FORMS, SparseProduct, can_be_sparse, sparse_layer


def pruned(layer: nn.Module, density: float) -> nn.Module:
    layer = layer.double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        keep = torch.rand(parameter.shape, generator=generator) < density
        parameter.data *= keep if parameter.dim() > 1 else 1
    return layer


CONVOLUTIONS = [
    lambda: nn.Conv2d(3, 8, 3),
    lambda: nn.Conv2d(4, 5, 5, stride=2, padding=2),
    lambda: nn.Conv2d(2, 3, (3, 1), padding=(1, 0), dilation=(2, 1), bias=False),
    lambda: nn.Conv2d(6, 4, 1),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("make", CONVOLUTIONS)
@pytest.mark.parametrize("batch", [1, 7])
def test_convolutions(make: Callable[[], nn.Conv2d], density: float, form: str, batch: int) -> None:
    layer = make()
    dense = pruned(layer, density)
    images = torch.randn(batch, layer.in_channels, 11, 9, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = dense(images), sparse_layer(dense, form)(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_many_images_are_computed_in_chunks(form: str) -> None:
    dense = pruned(nn.Conv2d(8, 4, 3, padding=1), 0.2)
    images = torch.randn(40, 8, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(
            sparse_layer(dense, form)(images), dense(images), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 33])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(form: str, batch: int, bias: bool) -> None:
    dense = pruned(nn.Linear(50, 20, bias=bias), 0.03)
    x = torch.randn(batch, 50, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(sparse_layer(dense, form)(x), dense(x), rtol=0, atol=1e-12)


def test_positions_that_no_weight_uses_are_not_read() -> None:
    weights = torch.zeros(4, 10)
    weights[:, 3] = 1.0
    for form in FORMS:
        columns = torch.full((10, 2), float("nan"))
        columns[3] = 5.0
        assert torch.equal(SparseProduct(weights, form)(columns), torch.full((4, 2), 5.0))


def test_what_has_no_sparse_form_is_refused() -> None:
    grouped = nn.Conv2d(4, 4, 3, groups=2)
    assert not can_be_sparse(grouped)
    with pytest.raises(ValueError, match="no sparse form"):
        sparse_layer(grouped, "csr")
    with pytest.raises(ValueError, match="choose csr or axpy"):
        sparse_layer(nn.Linear(2, 2), "dense")
