"""Halos that travel while something is computed."""

import pytest
import torch
from tests.training.strategies.model_parallel.divided import deviation
from torch import nn

from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.training.layers import convolution
from sixfold.training.layers.convolution import ConvOp
from sixfold.training.layers.weights import Weight
from sixfold.training.strategies.model_parallel.exchange_ops import Gather, rows_held
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.layout import Box, maps


def overlapped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Let every convolution be computed in rows; the rows of those that are."""
    monkeypatch.setattr(convolution, "PRODUCTS_IN_ROWS", 1)
    seen: list[tuple[int, int]] = []
    inner = ConvOp.forward_in_rows

    def watched(op: ConvOp, x: object, wanted: bool, rows: tuple[int, int], end: object) -> object:
        seen.append(rows)
        return inner(op, x, wanted, rows, end)  # type: ignore[arg-type]

    monkeypatch.setattr(ConvOp, "forward_in_rows", watched)
    return seen


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "mesh"),
    [
        (3, 1, 1, 1, Mesh(rows=2)),
        (6, 2, 1, 1, Mesh(rows=2)),
        (3, 1, 2, 2, Mesh(rows=3)),
        (5, 3, 0, 1, Mesh(rows=2)),
        (3, 1, 1, 1, Mesh(rows=2, cout=2)),
    ],
)
def test_inner_rows_are_computed_while_halos_travel(
    monkeypatch: pytest.MonkeyPatch,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    mesh: Mesh,
) -> None:
    seen = overlapped(monkeypatch)
    torch.manual_seed(1)
    body = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups=2),
    )
    features = body(torch.zeros(1, 2, 23, 9)).numel()
    network = nn.Sequential(*body, nn.Flatten(), nn.Linear(features, 2))
    # With the inline engine nothing of an exchange happens before its end.
    assert deviation(network, (2, 23, 9), mesh) < 1e-10
    assert seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(convolution, "PRODUCTS_IN_ROWS", 1)
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=(0, 1)).to(dtype)
    op = ConvOp(conv, Weight(0, conv.weight.detach()), Weight(1, conv.bias.detach()))  # type: ignore[union-attr]
    whole = torch.randn(2, 3, 15, 9).to(dtype).to(memory_format=torch.channels_last)
    x = whole.clone()
    x[:, :, 11:] = torch.nan
    rows = op.rows_before(x, (0, 11))
    assert rows == (0, 5)

    def end() -> None:
        x.copy_(whole)

    y, saved = op.forward_in_rows(x, True, rows, end)
    expected, kept = op.forward(whole, True)
    assert torch.allclose(y, expected, atol=1e-6 if dtype == torch.float32 else 2e-2)
    assert y.stride() == expected.stride()
    assert saved.way == kept.way
    assert torch.equal(saved.kept, kept.kept)


def test_small_layers_and_matrix_multiplications_wait_for_their_halos() -> None:
    conv = nn.Conv2d(3, 400, 3)
    op = ConvOp(conv, Weight(0, conv.weight.detach()), None)
    assert op.rows_before(torch.zeros(1, 3, 15, 9), (0, 11)) is None  # few products
    assert op.rows_before(torch.zeros(10000, 3, 5, 5), (0, 4)) == (0, 2)
    assert op.rows_before(torch.zeros(40, 3, 5, 5), (0, 4)) is None  # patches: 360 pixels


def test_rows_that_are_held_are_those_before_the_halo() -> None:
    def compute(comm: Communicator) -> tuple[int, int] | None:
        layout = maps(Mesh(rows=3), (2, 12, 5))
        needs: list[Box] = [((0, 2), rows, (0, 5)) for rows in ((0, 5), (3, 9), (8, 12))]
        pad = ((0, 0), ((1, 0), (0, 0), (0, 1))[comm.rank], (0, 0))
        return rows_held(Gather(comm, layout, needs, padding=pad))

    with InlineEngine() as engine:
        # Of (1 + 5) and 6 rows all but the neighbours', padding included; the last needs no more.
        assert engine.run_ranks(compute, 3).results == [[0, 5], [1, 5], None]


def test_nothing_is_held_whole_where_channels_must_come() -> None:
    def compute(comm: Communicator) -> None:
        layout = maps(Mesh(rows=2, cout=2), (4, 8, 5))
        needs: list[Box] = [((0, 4), rows, (0, 5)) for rows in ((0, 5), (0, 5), (3, 8), (3, 8))]
        assert rows_held(Gather(comm, layout, needs)) is None

    with InlineEngine() as engine:
        engine.run_ranks(compute, 4)
