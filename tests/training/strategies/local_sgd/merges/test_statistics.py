"""How far workers have moved, beside loops over single weights."""

import math

import pytest
import torch

from sixfold.training.strategies.local_sgd.merges.statistics import agreement, movement


def test_movement_of_a_tensor_that_began_at_zero_is_without_bounds() -> None:
    assert movement(torch.zeros(2), torch.ones(2)).percent == math.inf
    assert movement(torch.zeros(2), torch.zeros(2)).percent == 0.0


def test_agreement_is_the_majoritys_share() -> None:
    torch.manual_seed(0)
    deltas = torch.randn(5, 200)
    deltas[2, ::7] = 0
    shares = []
    for i in range(200):
        signs = [float(torch.sign(d[i])) for d in deltas]
        if 0.0 not in signs:
            shares.append(max(signs.count(1.0), signs.count(-1.0)) / 5)
    total, count = agreement(deltas)
    assert count == len(shares)
    assert total == pytest.approx(sum(shares))
    assert agreement(torch.ones(4, 3)) == (3.0, 3)
    pieces = [agreement(deltas[:, :50]), agreement(deltas[:, 50:])]
    assert sum(piece[0] for piece in pieces) == pytest.approx(total)
