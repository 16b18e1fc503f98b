"""State of a whole process, which ranks that share one must keep apart: randomness, threads.

torch is touched only where it has been imported already.
"""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Randomness = dict[str, Any]  # states of the global generators, by module


def save_randomness() -> Randomness:
    """The states of the process's global generators."""
    states: Randomness = {"random": random.getstate(), "numpy": np.random.get_state()}
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state()
    return states


def restore_randomness(states: Randomness) -> None:
    """Put back what `save_randomness` gave."""
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])
    torch = sys.modules.get("torch")
    if torch is not None:
        if "torch" in states:
            torch.set_rng_state(states["torch"])
        else:  # imported since: the state it would have had
            torch.manual_seed(torch.default_generator.initial_seed())


def seed_randomness(seed: int) -> None:
    """Start the process's global generators from a number, such as the rank's."""
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Global generators that start from `seed`, and are as before afterwards.

    Training draws nothing from them, but a user's function may: it sees the same on every engine.
    """
    before = save_randomness()
    seed_randomness(seed)
    try:
        yield
    finally:
        restore_randomness(before)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_one_thread() -> int | None:
    """From now on torch computes with one thread in operations of the calling thread.

    Returns with how many it did before.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    before: int = torch.get_num_threads()
    torch.set_num_threads(1)
    return before


@contextmanager
def one_thread() -> Iterator[None]:
    """`use_one_thread`, and as before afterwards."""
    before = use_one_thread()
    try:
        yield
    finally:
        if before is not None:
            sys.modules["torch"].set_num_threads(before)
