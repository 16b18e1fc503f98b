from __future__ import annotations

import random

import numpy as np
import torch

from sixfold.distributed.process_group.ambient import one_thread, own_randomness


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_own_randomness_repeats_and_leaves_no_trace() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = draws()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    with own_randomness(1):
        first = draws()
    with own_randomness(1):
        second = draws()
    with own_randomness(2):
        other = draws()
    assert first == second
    assert first != other
    assert draws() == expected


def test_one_thread_is_undone() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
