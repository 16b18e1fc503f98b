"""A slot's product has the same bits in any place, whatever this processor's library does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sixfold.lca import products

SIZES = st.integers(1, 40)


@given(groups=st.integers(1, 3), width=st.integers(1, 9), inner=SIZES, outer=SIZES, seed=SIZES)
@pytest.mark.parametrize("alike", [None, False])
def test_a_row_has_the_same_bits_in_any_place(
    alike: bool | None, groups: int, width: int, inner: int, outer: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    right = torch.randn(groups, inner, outer, generator=generator)
    row = torch.randn(groups, 1, inner, generator=generator)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        if alike is not None:
            patch.setattr(products, "slots_are_alike", lambda *_: alike)
        for slot in range(width):
            left = torch.randn(groups, width, inner, generator=generator)
            left[:, slot : slot + 1] = row
            out = products.slot_product(left, right, torch.empty(groups, width, outer))
            torch.testing.assert_close(out, left @ right)
            found.append(out[:, slot])
    assert all(torch.equal(other, found[0]) for other in found)


@given(inner=SIZES, outer=SIZES, rows=st.integers(2, 20), columns=st.integers(1, 20), seed=SIZES)
@pytest.mark.parametrize(
    ("taps", "dtype"), [(1, torch.float32), (1, torch.float64), (3, torch.float64)]
)
def test_a_position_has_the_same_bits_in_any_tile(
    inner: int, outer: int, rows: int, columns: int, seed: int, taps: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = (2, inner, rows + taps - 1, columns + taps - 1)
    maps = torch.randn(size, generator=generator, dtype=dtype)
    kernels = torch.randn(outer, inner, taps, taps, generator=generator, dtype=dtype)
    whole = products.convolve(maps, kernels)
    torch.testing.assert_close(whole, torch.nn.functional.conv2d(maps, kernels))
    cut = (rows + 1) // 2
    parts = (maps[:, :, : cut + taps - 1], maps[:, :, cut:])
    made = [products.convolve(part, kernels) for part in parts]
    assert torch.equal(torch.cat(made, 2), whole)
