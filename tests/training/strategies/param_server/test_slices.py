"""The cut of a network's state into slices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.training.strategies.param_server.slices import ALIGNMENT, cut

SIZES = st.integers(0, 5000)


@given(parameters=SIZES, buffers=SIZES, counters=st.integers(0, 50), servers=st.integers(1, 9))
def test_slices_cover_everything_once_in_order(
    parameters: int, buffers: int, counters: int, servers: int
) -> None:
    slices = cut(parameters, buffers, counters, servers)
    assert len(slices) == servers
    for length, name in ((parameters, "parameters"), (buffers, "buffers"), (counters, "counters")):
        ranges = [getattr(piece, name) for piece in slices]
        covered = [place for start, stop in ranges for place in range(start, stop)]
        assert covered == list(range(length)), name
    total = parameters + buffers + counters
    assert all(abs(piece.elements - total / servers) <= ALIGNMENT for piece in slices)


@pytest.mark.parametrize("servers", [2, 3, 7])
def test_cuts_leave_no_odd_tails(servers: int) -> None:
    for piece in cut(100_000, 0, 0, servers)[:-1]:
        assert piece.parameters[1] % ALIGNMENT == 0
