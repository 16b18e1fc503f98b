"""Groups: some ranks of a process group as a group of their own."""

import numpy as np
import pytest

from sixfold.distributed.collectives import all_gather_int
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator, alone


def test_a_group_talks_within_itself_and_its_traffic_counts() -> None:
    def compute(comm: Communicator) -> list[int]:
        own = comm.subgroup(range(comm.rank % 2, comm.size, 2))
        assert own.size == 3
        assert own.rank == comm.rank // 2
        found = all_gather_int(own, comm.rank)
        assert comm.traffic.bytes_sent == 16
        assert own.traffic is comm.traffic
        return found

    with InlineEngine() as engine:
        results = engine.run_ranks(compute, 6).results
    assert results == [[0, 2, 4], [1, 3, 5]] * 3


def test_groups_nest() -> None:
    def compute(comm: Communicator) -> int:
        if comm.rank == 0:
            return 0
        inner = comm.subgroup([1, 2, 3]).subgroup([2, 1]) if comm.rank > 1 else None
        if inner is None:
            return 1
        received = np.zeros(1, np.int64)
        inner.exchange({1 - inner.rank: np.array([comm.rank])}, {1 - inner.rank: received})
        return int(received[0])

    with InlineEngine() as engine:
        assert engine.run_ranks(compute, 4).results == [0, 1, 3, 2]


def test_the_caller_must_belong_to_the_group() -> None:
    with pytest.raises(ValueError, match="rank 0 is not one of"):
        alone().subgroup([1, 2])
