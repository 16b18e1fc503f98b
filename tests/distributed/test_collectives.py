"""Reductions and gathers over real worlds of several ranks (threads that take turns)."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.distributed import collectives
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.logical_shards import Node, TreeFold, owned_shards
from sixfold.distributed.process_group import Communicator


def shard_vector(shard: int, length: int) -> np.ndarray[Any, Any]:
    """Values of very different size, so that another order of adding gives other bits."""
    random = np.random.default_rng(shard)
    values = random.standard_normal(length) * 10.0 ** random.integers(-6, 6, length)
    single: np.ndarray[Any, Any] = np.asarray(values, np.float32)
    return single


def serial_sum(count: int, length: int) -> np.ndarray[Any, Any]:
    """The tree, written as a recursion."""

    def tree(low: int, high: int) -> np.ndarray[Any, Any]:
        if high - low == 1:
            return shard_vector(low, length)
        middle = (low + high) // 2
        total: np.ndarray[Any, Any] = tree(low, middle) + tree(middle, high)
        return total

    return tree(0, count)


def partials_of(comm: Communicator, count: int, length: int) -> list[tuple[Node, Any]]:
    fold: TreeFold[Any] = TreeFold(lambda left, right: left + right)
    for shard in owned_shards(count, comm.size, comm.rank):
        fold.push(Node(0, shard), shard_vector(shard, length))
    return fold.nodes


def reduce_rank(comm: Communicator, *, count: int, length: int, exact: bool) -> list[str]:
    out = np.full(length, np.nan, np.float32)
    partials = partials_of(comm, count, length)
    reduce = collectives.tree_all_reduce if exact else collectives.rank_all_reduce
    total = reduce(comm, partials, count, out=out)
    assert total is out
    return [total.tobytes().hex(), str(comm.traffic.bytes_sent)]


@given(
    size=st.integers(1, 7),
    level=st.integers(0, 5),
    length=st.sampled_from([1, 2, 5, 100, 4096, 5000]),
)
def test_tree_all_reduce_has_the_bits_of_the_serial_tree(
    size: int, level: int, length: int
) -> None:
    count = 1 << level
    job = functools.partial(reduce_rank, count=count, length=length, exact=True)
    results = InlineEngine().run_ranks(job, size).results
    assert {bits for bits, _ in results} == {serial_sum(count, length).tobytes().hex()}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_rank_all_reduce_agrees_on_all_ranks_and_is_close(size: int) -> None:
    job = functools.partial(reduce_rank, count=8, length=1000, exact=False)
    results = InlineEngine().run_ranks(job, size).results
    assert len({bits for bits, _ in results}) == 1
    found = np.frombuffer(bytes.fromhex(results[0][0]), np.float32)
    np.testing.assert_allclose(found, serial_sum(8, 1000), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_large_vector_costs_each_rank_about_twice_its_size(size: int) -> None:
    length = 80_000
    job = functools.partial(reduce_rank, count=8, length=length, exact=True)
    for _, sent in InlineEngine().run_ranks(job, size).results:
        assert int(sent) <= 2 * 4 * length


def test_an_idle_rank_without_a_vector_is_told_what_to_give() -> None:
    def job(comm: Communicator) -> None:
        partials = partials_of(comm, 1, 4)
        collectives.tree_all_reduce(comm, partials, 1)

    with pytest.raises(Exception, match="owns no shard and must give `out`"):
        InlineEngine().run_ranks(job, 2)


def gather_rank(comm: Communicator) -> Any:
    rows = np.full((comm.rank, 2), comm.rank, np.int32)
    gathered = collectives.gather(comm, rows)
    data = collectives.all_gather_data(comm, {"rank": comm.rank, "text": "ä" * comm.rank})
    integers = collectives.all_gather_int(comm, -comm.rank)
    return [[part.tolist() for part in gathered], data, integers]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_gathers_keep_the_order_of_ranks(size: int) -> None:
    results = InlineEngine().run_ranks(gather_rank, size).results
    rows = [[[rank, rank]] * rank for rank in range(size)]
    assert results[0][0] == rows
    for rank, (gathered, data, integers) in enumerate(results):
        assert gathered == (rows if rank == 0 else [])
        assert data == [{"rank": r, "text": "ä" * r} for r in range(size)]
        assert integers == [-r for r in range(size)]
