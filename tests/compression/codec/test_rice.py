import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.compression.codec.rice import pack_table, unpack_table


@settings(deadline=None)
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


@settings(deadline=None)
@given(st.binary(max_size=30), st.integers(0, 40))
def test_noise_is_refused_or_a_table(noise: bytes, count: int) -> None:
    try:
        table = unpack_table(noise, count)
    except ValueError:
        return
    assert len(table) == count
