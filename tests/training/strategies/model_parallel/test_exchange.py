"""Exchanges: gathering brings the right elements, and adding is its transpose."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.training.strategies.model_parallel.exchange import (
    NO_PADDING,
    Padding,
    RankSum,
    add,
    gather,
)
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import (
    Box,
    Layout,
    everywhere,
    maps,
    sizes,
    slices,
    vector,
)
from sixfold.training.strategies.model_parallel.move import plan

SHAPE = (4, 5, 3)
WHOLE: Box = tuple((0, length) for length in SHAPE)


def interval(length: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, length), st.integers(0, length)).map(
        lambda ends: (min(ends), max(ends))
    )


BOXES: st.SearchStrategy[Box] = st.tuples(*(interval(length) for length in SHAPE)).map(
    lambda box: box if all(a < b for a, b in box) else ((0, 0), (0, 0), (0, 0))
)
MESHES = st.sampled_from(
    [Mesh(), Mesh(rows=2), Mesh(rows=2, cols=2), Mesh(cout=3), Mesh(rows=2, cin=2, cout=2)]
)
KINDS = st.sampled_from([maps, everywhere])


def held(layout: Layout, rank: int, whole: Tensor) -> Tensor:
    return whole[(slice(None), *slices(layout.box(rank), WHOLE))]


@settings(derandomize=True)
@given(mesh=MESHES, kind=KINDS, data=st.data())
def test_gather_brings_what_is_needed_and_add_is_its_transpose(
    mesh: Mesh, kind: object, data: st.DataObject
) -> None:
    layout: Layout = kind(mesh, SHAPE)  # type: ignore[operator]
    needs = [data.draw(BOXES) for _ in range(mesh.size)]
    padding: Padding = data.draw(st.sampled_from([NO_PADDING, ((1, 0), (0, 2), (1, 1))]))
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    weights = [
        torch.randn(
            2,
            *(size + sum(pads) for size, pads in zip(sizes(need), padding, strict=True)),
            generator=generator,
            dtype=torch.float64,
        )
        for need in needs
    ]
    gathered: dict[int, float] = {}
    added: dict[int, float] = {}

    def compute(comm: Communicator) -> None:
        move = plan(comm.rank, layout, needs)
        own = held(layout, comm.rank, whole).contiguous()
        found = gather(comm, own, move, padding, fill=0.0)
        core = found[
            (
                slice(None),
                *(
                    slice(pads[0], pads[0] + size)
                    for pads, size in zip(padding, sizes(move.need), strict=True)
                ),
            )
        ]
        assert torch.equal(core, whole[(slice(None), *slices(move.need, WHOLE))])
        assert abs(float(found.sum() - core.sum())) < 1e-9  # the padding is zero
        gathered[comm.rank] = float((found * weights[comm.rank]).sum())
        back = add(comm, weights[comm.rank], move, padding)
        assert tuple(back.shape[1:]) == sizes(layout.box(comm.rank))
        # Copies of an element get the same total: count one of them.
        if mesh.place(comm.rank, tuple(sorted(layout.copied))) == 0:
            added[comm.rank] = float((own * back).sum())

    with InlineEngine() as engine:
        engine.run_ranks(compute, mesh.size)
    assert abs(sum(gathered.values()) - sum(added.values())) < 1e-9


def test_duplicated_needs_count_once() -> None:
    mesh = Mesh(rows=2, cout=2)
    layout = maps(mesh, SHAPE)

    def compute(comm: Communicator) -> None:
        move = plan(comm.rank, layout, [WHOLE] * mesh.size, duplicated=mesh.axes)
        ones = torch.ones(1, *SHAPE)
        before = comm.traffic.bytes_sent
        assert torch.equal(add(comm, ones, move), torch.ones(1, *sizes(move.own)))
        assert comm.traffic.bytes_sent == before

    with InlineEngine() as engine:
        engine.run_ranks(compute, mesh.size)


def test_channels_last_stays_channels_last() -> None:
    mesh = Mesh(rows=2)
    layout = maps(mesh, SHAPE)

    def compute(comm: Communicator) -> None:
        move = plan(comm.rank, layout, [WHOLE] * 2)
        own = torch.zeros(2, *sizes(move.own)).to(memory_format=torch.channels_last)
        found = gather(comm, own, move)
        assert found.is_contiguous(memory_format=torch.channels_last)

    with InlineEngine() as engine:
        engine.run_ranks(compute, 2)


def test_the_order_of_one_channels_dims_is_that_of_its_strides() -> None:
    whole: Box = ((0, 1), (0, 4), (0, 4))
    layout = maps(Mesh(rows=2), (1, 4, 4))

    def compute(comm: Communicator) -> None:
        move = plan(comm.rank, layout, [whole] * 2)
        for order in (torch.channels_last, torch.contiguous_format):
            own = torch.empty(2, *sizes(move.own), memory_format=order).zero_()
            found = gather(comm, own, move)
            assert (found.stride(1) == 1) == (order is torch.channels_last)

    with InlineEngine() as engine:
        engine.run_ranks(compute, 2)


def test_rank_sums_are_the_same_on_all_ranks_and_leave_their_argument() -> None:
    def compute(comm: Communicator) -> list[float]:
        own = torch.tensor([1e16, float(comm.rank)], dtype=torch.float64)
        total = RankSum(comm)(own)
        assert own.tolist() == [1e16, float(comm.rank)]
        found: list[float] = total.tolist()
        return found

    with InlineEngine() as engine:
        assert engine.run_ranks(compute, 3).results == [[3e16, 3.0]] * 3


def test_vectors_nest_in_maps() -> None:
    mesh = Mesh(rows=2, cout=3)
    for rank in range(mesh.size):
        (low, high), *_ = vector(mesh, 7).box(rank)
        (first, last), *_ = maps(mesh, (7, 1, 1)).box(rank)
        assert first <= low <= high <= last


def test_sums_of_bfloat16_are_made_with_more_bits() -> None:
    mesh, layout = Mesh(rows=2), maps(Mesh(rows=2), SHAPE)

    def compute(comm: Communicator) -> None:
        move = plan(comm.rank, layout, [WHOLE] * 2)
        whole = torch.full((1, *SHAPE), 1.0 + comm.rank * 2**-9).bfloat16()
        assert torch.equal(
            gather(comm, held(layout, comm.rank, whole), move)[:, :, :1],
            torch.ones(1, 4, 1, 3).bfloat16(),
        )
        assert torch.equal(
            add(comm, whole, move), torch.full_like(held(layout, comm.rank, whole), 2.0)
        )

    with InlineEngine() as engine:
        engine.run_ranks(compute, mesh.size)
