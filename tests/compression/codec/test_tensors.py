import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.marks import some
from torch import Tensor

from sixfold.compression.codec.streams import CODERS
from sixfold.compression.codec.tensors import DTYPES, pack_tensor, unpack_tensor


def pruned(shape: tuple[int, ...], kept: float, values: int, seed: int = 0) -> Tensor:
    """A tensor with a part of its elements and so many different values (0: all different)."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=shape)
    if values:
        dense = np.round(rng.integers(1, values + 1, shape) / 8 - 3.33, 3)
    return torch.from_numpy(np.where(rng.random(shape) < kept, dense, 0)).float()


def same(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("kept", some([0.0, 0.01, 0.1, 0.7, 1.0], 2))
@pytest.mark.parametrize("values", some([0, 1, 31, 255], 2))
def test_nothing_is_lost(coder: str, kept: float, values: int) -> None:
    tensor = pruned((50, 20, 3, 3), kept, values)
    data, parts = pack_tensor(tensor, coder)
    assert same(unpack_tensor(data, tensor.dtype, tuple(tensor.shape)), tensor)
    assert parts.kept == int((tensor != 0).sum())
    assert parts.elements == tensor.numel()
    if parts.gap_bits:
        # Head: layout, scan, bits and the number of entries.
        rest = len(data) - parts.position_bytes - parts.value_bytes - parts.codebook_bytes
        assert 4 <= rest <= 6


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 9), max_size=4),
    st.sampled_from(CODERS),
    st.integers(0, 2**32 - 1),
)
def test_any_dtype_and_shape_comes_back(
    dtype: torch.dtype, shape: list[int], coder: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = np.asarray(rng.normal(size=shape) * (rng.random(shape) < 0.3) * 50)
    tensor = torch.from_numpy(values).to(dtype)
    data, _ = pack_tensor(tensor, coder)
    assert same(unpack_tensor(data, dtype, tuple(shape)), tensor)


def test_odd_floats_come_back() -> None:
    odd = [float("nan"), float("inf"), -float("inf"), -0.0, 1e-45, 3e38, 65504.0, 65536.0]
    tensor = torch.tensor(odd * 16).reshape(8, 16)
    data, _ = pack_tensor(tensor, "ans")
    found = unpack_tensor(data, torch.float32, (8, 16))
    assert torch.equal(found.nan_to_num(7.0), tensor.nan_to_num(7.0))
    assert not torch.signbit(found[found == 0]).any()


def test_entropy_coders_beat_fixed_width_and_columns_are_used_where_they_help() -> None:
    tensor = pruned((300, 784), 0.08, 31)
    sizes = {coder: len(pack_tensor(tensor, coder)[0]) for coder in CODERS}
    assert max(sizes["ans"], sizes["huffman"]) < 0.99 * sizes["fixed"]
    empty_columns = tensor.clone()
    empty_columns[:, torch.rand(784, generator=torch.Generator().manual_seed(0)) < 0.6] = 0
    assert pack_tensor(empty_columns, "ans")[0][1] == 1
    assert pack_tensor(empty_columns.T.contiguous(), "ans")[0][1] == 0


def test_floats_that_half_holds_take_two_bytes() -> None:
    exact = torch.arange(200.0) / 8
    assert len(pack_tensor(exact, "ans")[0]) == 1 + 400
    assert len(pack_tensor(exact + 1e-5, "ans")[0]) == 1 + 800
