from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.spark_masters import EngineProcess

from sixfold.core.errors import RankLostError, RankRaisedError, UserError

pytestmark = pytest.mark.spark


def square(item: int) -> dict[str, int]:
    print(f"item {item}")
    return {"square": item * item}


def test_results_come_in_the_order_of_the_items_and_each_is_told_once(
    spark_local: EngineProcess, tmp_path: Path
) -> None:
    done: list[tuple[int, Any]] = []
    log = tmp_path / "log.txt"
    results = spark_local.pool(
        square, [3, 1, 2], workers=2, on_done=lambda i, r: done.append((i, r)), log=log
    )
    assert results == [{"square": 9}, {"square": 1}, {"square": 4}]
    assert sorted(done) == list(enumerate(results))
    lines = [line for line in log.read_text().splitlines() if "spark" not in line]
    assert sorted(lines) == ["[rank 0] item 3", "[rank 1] item 1", "[rank 2] item 2"]


def test_items_may_be_added_as_results_come(spark_local: EngineProcess) -> None:
    def more(_index: int, result: Any) -> list[int]:
        return [result["square"]] if result["square"] < 20 else []

    results = spark_local.pool(square, [2], workers=2, on_done=more)
    assert [result["square"] for result in results] == [4, 16, 256]


def test_a_pool_of_nothing_is_nothing(spark_local: EngineProcess) -> None:
    assert spark_local.pool(square, [], workers=2) == []


def test_no_more_than_so_many_items_at_a_time(spark_local: EngineProcess, tmp_path: Path) -> None:
    def alone(item: int) -> bool:
        mark = tmp_path / "running"
        mark.touch(exist_ok=False)
        mark.unlink()
        return True

    assert spark_local.pool(alone, [0, 1, 2], workers=1) == [True] * 3


def test_an_item_waits_for_those_it_comes_after(spark_local: EngineProcess, tmp_path: Path) -> None:
    def work(number: int) -> list[str]:
        before = sorted(path.name for path in tmp_path.iterdir())
        (tmp_path / str(number)).touch()
        return before

    seen = spark_local.pool(work, [0, 1, 2], workers=2, after=[[1], [2], []])
    assert seen == [["1", "2"], ["2"], []]


@pytest.mark.parametrize("master", ["local", pytest.param("cluster", marks=pytest.mark.full)])
def test_an_item_whose_worker_is_killed_is_tried_again(
    master: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    def die_once(item: int) -> int:
        mark = tmp_path / f"{item}"
        if item == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    engine: EngineProcess = request.getfixturevalue(f"spark_{master}")
    done: list[int] = []
    results = engine.pool(
        die_once, [0, 1, 2], workers=2, retries=1, on_done=lambda i, _: done.append(i)
    )
    assert results == [0, 1, 2]
    assert sorted(done) == [0, 1, 2]


@pytest.mark.full
def test_an_item_that_kills_every_worker_is_given_up_after_its_retries(
    spark_local: EngineProcess, tmp_path: Path
) -> None:
    def die(item: int) -> None:
        (tmp_path / f"{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RankLostError) as caught:
        spark_local.pool(die, [0], workers=1, retries=2)
    assert type(caught.value) is RankLostError
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("error", "expected"), [(ValueError("oops"), RankRaisedError), (UserError("bad"), UserError)]
)
def test_what_an_item_raises_is_raised_here_and_ends_the_pool(
    spark_local: EngineProcess, error: Exception, expected: type[Exception]
) -> None:
    def fail(item: int) -> None:
        raise error

    with pytest.raises(expected, match=str(error)):
        spark_local.pool(fail, range(4), workers=2)
    assert spark_local.pool(square, [2], workers=1) == [{"square": 4}]
