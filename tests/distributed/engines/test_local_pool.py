from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sixfold.core.errors import NonFiniteLossError, RankLostError, RankRaisedError, UserError
from sixfold.distributed.engines.local import LocalEngine

Die = Callable[[int], int]


@pytest.fixture
def dying(tmp_path: Path) -> Callable[[int, int], Die]:
    """Makes a function that squares, but is killed the first times that it is given an item."""

    def make(victim: int, times: int) -> Die:
        def square(number: int) -> int:
            if number == victim:
                tries = len(list(tmp_path.glob("try-*")))
                (tmp_path / f"try-{tries}").touch()
                if tries < times:
                    print(f"try {tries}", flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
            return number * number

        return square

    return make


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_results_have_the_order_of_the_items(local: LocalEngine, workers: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number * number

    done: dict[int, int] = {}
    results = local.pool(work, range(7), workers=workers, on_done=done.__setitem__)
    assert results == [number * number for number in range(7)]
    assert done == dict(enumerate(results))


@pytest.mark.parametrize("workers", [1, 3])
def test_items_may_be_added_as_results_come(local: LocalEngine, workers: int) -> None:
    def halves(_index: int, result: int) -> list[int]:
        return [result, result] if result > 1 else []

    results = local.pool(lambda number: number // 2, [8], workers=workers, on_done=halves)
    assert sorted(results) == [1, 1, 1, 1, 2, 2, 4]


def test_no_items_need_no_workers(local: LocalEngine) -> None:
    assert local.pool(abs, [], workers=3) == []


def test_an_item_waits_for_those_it_comes_after(local: LocalEngine, tmp_path: Path) -> None:
    def work(number: int) -> list[int]:
        before = sorted(int(path.name) for path in tmp_path.iterdir())
        time.sleep(0.02)
        (tmp_path / str(number)).touch()
        return before

    after = [[3], [0], [], [2], []]
    seen = local.pool(work, range(5), workers=2, after=after)
    for number, needed in enumerate(after):
        assert set(needed) <= set(seen[number])


def test_a_dead_worker_s_item_still_holds_back_those_after_it(
    local: LocalEngine, dying: Callable[[int, int], Die]
) -> None:
    order: list[int] = []
    local.pool(
        dying(0, 2),
        range(3),
        workers=2,
        after=[[], [0], [1]],
        on_done=lambda index, _: order.append(index),
    )
    assert order == [0, 1, 2]


def test_whoever_is_free_takes_the_next(local: LocalEngine) -> None:
    def work(number: int) -> int:
        time.sleep(0.5 if number == 0 else 0.005)
        return os.getpid()

    pids = local.pool(work, range(20), workers=2)
    assert len(set(pids)) == 2
    assert pids.count(pids[0]) < 5


def test_arrays_of_megabytes_come_back(local: LocalEngine) -> None:
    def work(array: Any) -> Any:
        return array * 2

    arrays = [np.full((500, 1000), number, np.float64) for number in range(3)]
    for number, result in enumerate(local.pool(work, arrays, workers=2)):
        np.testing.assert_array_equal(result, np.full((500, 1000), 2.0 * number))


def test_a_killed_worker_loses_only_its_item(
    local: LocalEngine, dying: Callable[[int, int], Die], tmp_path: Path
) -> None:
    done: list[int] = []
    results = local.pool(
        dying(3, 2), range(8), workers=2, retries=2, on_done=lambda index, _: done.append(index)
    )
    assert results == [number * number for number in range(8)]
    assert sorted(done) == list(range(8))
    assert len(list(tmp_path.glob("try-*"))) == 3


def test_an_item_that_kills_too_often_is_named(
    local: LocalEngine, dying: Callable[[int, int], Die]
) -> None:
    with pytest.raises(RankLostError, match=r"after 1 restart\)") as info:
        local.pool(dying(2, 99), range(4), workers=2, retries=1)
    cause = "killed by signal 9 (SIGKILL) while it worked on item 2"
    assert info.value.failure.cause == cause
    assert info.value.failure.log_tail == ("try 1",)


def test_the_death_of_the_server_is_survived(own_local: LocalEngine, tmp_path: Path) -> None:
    server = own_local.warm_up().pid

    def work(number: int) -> int:
        if number == 2 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(server, signal.SIGKILL)
            time.sleep(60)
        return -number

    assert own_local.pool(work, range(5), workers=2, retries=1) == [0, -1, -2, -3, -4]
    assert own_local.warm_up().pid != server


def test_an_exception_ends_the_pool_and_is_told(local: LocalEngine) -> None:
    def work(number: int) -> None:
        if number == 1:
            raise LookupError("number one")
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(RankRaisedError, match="LookupError: number one") as info:
        local.pool(work, [0, 1], workers=2)
    assert any("in work" in line for line in info.value.failure.log_tail)
    assert time.monotonic() - began < 10.0


def test_errors_of_our_own_arrive_as_they_were(local: LocalEngine) -> None:
    def wrong(number: int) -> None:
        raise UserError(["one", "two"])

    def diverged(number: int) -> None:
        raise NonFiniteLossError("nan")

    with pytest.raises(UserError) as info:
        local.pool(wrong, [0], workers=1)
    assert info.value.problems == ("one", "two")
    with pytest.raises(NonFiniteLossError, match="nan"):
        local.pool(diverged, [0], workers=1)


def test_leaving_by_the_front_door_is_told_too(local: LocalEngine) -> None:
    def work(number: int) -> None:
        raise SystemExit(number)

    with pytest.raises(RankRaisedError, match="SystemExit: 4"):
        local.pool(work, [4], workers=1)


def test_a_result_that_cannot_be_sent_is_told(local: LocalEngine) -> None:
    def work(number: int) -> Any:
        return (value for value in [number])

    with pytest.raises(RankRaisedError, match="cannot pickle"):
        local.pool(work, [0], workers=1)


def test_what_workers_print_is_logged(local: LocalEngine, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    local.pool(print, ["a", "b", "c"], workers=2, log=log)
    lines = log.read_text().splitlines()
    assert sorted(line.partition("] ")[2] for line in lines) == ["a", "b", "c"]
    assert {line.partition("] ")[0] for line in lines} <= {"[rank 0", "[rank 1"}


def test_random_numbers_depend_on_the_item_only(local: LocalEngine) -> None:
    def work(number: int) -> float:
        return float(np.random.rand())

    assert len(set(local.pool(work, range(6), workers=2))) == 1
