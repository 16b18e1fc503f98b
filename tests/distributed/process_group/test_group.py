"""Groups: some ranks of a gang as a world of their own."""

import numpy as np
import pytest

from sixfold.distributed.collectives import all_gather_int
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import World, alone
from sixfold.distributed.process_group.group import group


def test_a_group_talks_within_itself_and_its_traffic_counts() -> None:
    def compute(world: World) -> list[int]:
        own = group(world, range(world.rank % 2, world.size, 2))
        assert own.size == 3
        assert own.rank == world.rank // 2
        found = all_gather_int(own, world.rank)
        assert world.traffic.bytes_sent == 16
        assert own.traffic is world.traffic
        return found

    with InlineEngine() as engine:
        results = engine.gang(compute, 6).results
    assert results == [[0, 2, 4], [1, 3, 5]] * 3


def test_groups_nest() -> None:
    def compute(world: World) -> int:
        if world.rank == 0:
            return 0
        inner = group(group(world, [1, 2, 3]), [2, 1]) if world.rank > 1 else None
        if inner is None:
            return 1
        received = np.zeros(1, np.int64)
        inner.exchange({1 - inner.rank: np.array([world.rank])}, {1 - inner.rank: received})
        return int(received[0])

    with InlineEngine() as engine:
        assert engine.gang(compute, 4).results == [0, 1, 3, 2]


def test_the_caller_must_belong_to_the_group() -> None:
    with pytest.raises(ValueError, match="rank 0 is not one of"):
        group(alone(), [1, 2])
