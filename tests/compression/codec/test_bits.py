import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.compression.codec.bits import pack, packed_bytes, unpack


@settings(deadline=None)
@given(st.integers(0, 16), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_packing_is_writing_binary_numbers_behind_each_other(
    width: int, count: int, seed: int
) -> None:
    symbols = np.random.default_rng(seed).integers(0, 1 << width, count)
    text = "".join(f"{symbol:0{width}b}" for symbol in symbols) if width else ""
    slow = bytes(int(text[k : k + 8].ljust(8, "0"), 2) for k in range(0, len(text), 8))
    assert pack(symbols, width) == slow
    assert len(slow) == packed_bytes(count, width)
    assert unpack(slow, width, count).tolist() == symbols.tolist()


@pytest.mark.parametrize("width", [1, 5, 12])
def test_chunks_fit_together(width: int) -> None:
    count = (1 << 20) + 13
    symbols = np.random.default_rng(0).integers(0, 1 << width, count)
    assert (unpack(pack(symbols, width), width, count) == symbols).all()
