import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.compression.codec.wire import pack, pack_table, packed_bytes, unpack, unpack_table


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


@given(st.lists(st.integers(0, 255), max_size=60))
def test_any_table_comes_back(table: list[int]) -> None:
    assert unpack_table(pack_table(table), len(table)).tolist() == table


def test_smooth_tables_take_few_bits() -> None:
    table = np.round(100 + 40 * np.cos(np.arange(256) / 40)).astype(int).tolist()
    assert len(pack_table(table)) < 100
    assert len(pack_table([0] * 80)) <= 11


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_cut_tables_are_refused(cut: int) -> None:
    with pytest.raises(ValueError):
        unpack_table(pack_table([100, 3, 77, 8])[:cut], 4)


@given(st.binary(max_size=30), st.integers(0, 40))
def test_noise_is_refused_or_a_table(noise: bytes, count: int) -> None:
    try:
        table = unpack_table(noise, count)
    except ValueError:
        return
    assert len(table) == count
