from __future__ import annotations

import contextvars
import gc
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from sixfold.distributed.process_group.scheduler import CooperativeScheduler, DeadlockError


def at_least(values: Sequence[object], count: int) -> Callable[[], bool]:
    return lambda: len(values) >= count


def test_exactly_one_runs_at_a_time_and_the_order_is_fixed() -> None:
    def trace() -> list[int]:
        turns: CooperativeScheduler[None] = CooperativeScheduler()
        running, seen = [0], []

        def play(number: int) -> None:
            for turn in range(5):
                running[0] += 1
                time.sleep(0.0005)
                assert running == [1]
                running[0] -= 1
                seen.append(number)
                turns.wait_until(at_least(seen, 4 * (turn + 1)))

        turns.run([partial(play, number) for number in range(4)])
        return seen

    first = trace()
    assert sorted(first) == sorted([0, 1, 2, 3] * 5)
    assert trace() == first


def test_values_come_back_in_order() -> None:
    assert CooperativeScheduler[int]().run([partial(int, number) for number in range(3)]) == [
        0,
        1,
        2,
    ]
    assert CooperativeScheduler[int]().run([]) == []


def test_a_condition_that_holds_does_not_give_way() -> None:
    turns: CooperativeScheduler[None] = CooperativeScheduler()
    order = []

    def first() -> None:
        order.append("a")
        turns.wait_until(lambda: True)
        order.append("b")

    turns.run([first, lambda: order.append("c")])
    assert order == ["a", "b", "c"]


def test_lockstep_through_a_shared_barrier() -> None:
    """The use that synchronised batch-norm makes of it: all sums before anybody's mean."""
    turns: CooperativeScheduler[list[float]] = CooperativeScheduler()
    sums: dict[int, list[float]] = {0: [], 1: []}

    def shard(value: float) -> list[float]:
        means = []
        for layer in (0, 1):
            sums[layer].append(value)
            turns.wait_until(at_least(sums[layer], 4))
            means.append(sum(sums[layer]) / 4)
            value = value - means[-1]
        return means

    assert turns.run([partial(shard, value) for value in (1.0, 2.0, 3.0, 6.0)]) == [[3.0, 0.0]] * 4


def test_a_deadlock_is_told_at_once_with_all_reasons() -> None:
    turns: CooperativeScheduler[None] = CooperativeScheduler()
    cleaned = []

    def stuck(name: str) -> None:
        try:
            turns.wait_until(lambda: False, lambda: f"{name} waits for rain")
        finally:
            cleaned.append(name)

    began = time.monotonic()
    with pytest.raises(
        DeadlockError, match=r"deadlock: a waits for rain; c waits for rain$"
    ) as info:
        turns.run([lambda: stuck("a"), lambda: None, lambda: stuck("c")])
    assert info.value.waits == {0: "a waits for rain", 2: "c waits for rain"}
    assert time.monotonic() - began < 1.0
    assert sorted(cleaned) == ["a", "c"]


def test_one_alone_can_deadlock_too() -> None:
    turns: CooperativeScheduler[None] = CooperativeScheduler()
    with pytest.raises(DeadlockError, match="unknown"):
        turns.run([lambda: turns.wait_until(lambda: False)])


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_the_first_exception_ends_all(culprit: int) -> None:
    turns: CooperativeScheduler[None] = CooperativeScheduler()
    events: list[str] = []

    def play(number: int) -> None:
        try:
            arrived.append(number)
            turns.wait_until(lambda: len(arrived) == 3)
            if number == culprit:
                raise KeyError(number)
            turns.wait_until(lambda: False)
        except Exception as error:  # what unwinds the others is none of these
            events.append(f"{number} {type(error).__name__}")
            raise
        finally:
            turns.current  # noqa: B018
            events.append(f"{number} ended")

    arrived: list[int] = []
    with pytest.raises(KeyError):
        turns.run([partial(play, number) for number in range(3)])
    assert turns.failed == culprit
    assert f"{culprit} KeyError" in events
    assert sorted(event for event in events if "ended" in event) == [
        "0 ended",
        "1 ended",
        "2 ended",
    ]
    assert len(events) == 4


def test_a_function_that_has_not_begun_when_another_fails_never_does() -> None:
    turns: CooperativeScheduler[None] = CooperativeScheduler()
    begun: list[int] = []

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        turns.run([fail, lambda: begun.append(1)])
    assert begun == []


def test_waiting_in_a_finally_clause_of_an_abandoned_function_does_not_hang() -> None:
    turns: CooperativeScheduler[None] = CooperativeScheduler()

    def polite() -> None:
        try:
            turns.wait_until(lambda: False)
        finally:
            turns.wait_until(lambda: True)

    def rude() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        turns.run([polite, rude])


def test_switches_are_announced() -> None:
    switches: list[tuple[int, int]] = []
    turns: CooperativeScheduler[None] = CooperativeScheduler(
        on_switch=lambda before, after: switches.append((before, after))
    )
    count = [0]

    def play() -> None:
        count[0] += 1
        turns.wait_until(lambda: count[0] == 2)

    turns.run([play, play])
    assert switches == [(0, 1), (1, 0)]


def test_context_variables_pass_to_all() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)
    assert CooperativeScheduler[int]().run([variable.get, variable.get]) == [7, 7]


def test_turns_within_turns() -> None:
    """As when a rank of the inline engine runs its shards in turns."""
    outer: CooperativeScheduler[list[int]] = CooperativeScheduler()
    posts: list[int] = []

    def rank(number: int) -> list[int]:
        inner: CooperativeScheduler[int] = CooperativeScheduler()
        seen: list[int] = []

        def shard(value: int) -> int:
            seen.append(value)
            inner.wait_until(lambda: len(seen) == 2)
            posts.append(10 * number + value)
            outer.wait_until(lambda: len(posts) >= 2)
            return value

        return inner.run([lambda: shard(0), lambda: shard(1)])

    assert outer.run([lambda: rank(0), lambda: rank(1)]) == [[0, 1], [0, 1]]
    assert sorted(posts) == [0, 1, 10, 11]


@pytest.mark.parametrize("whose_turn", [0, 1])
def test_ctrl_c_ends_all(whose_turn: int) -> None:
    turns: CooperativeScheduler[None] = CooperativeScheduler()
    ended: list[int] = []
    calls = [0]
    main = threading.get_ident()

    def play(number: int) -> None:
        try:
            while True:
                calls[0] += 1
                if number == whose_turn and calls[0] > 10:
                    signal.pthread_kill(main, signal.SIGINT)
                    time.sleep(0.05)
                before = calls[0]
                turns.wait_until(lambda: calls[0] > before)  # noqa: B023  it is used at once
        finally:
            ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        turns.run([lambda: play(0), lambda: play(1)])
    assert sorted(ended) == [0, 1]


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    functions: list[Callable[[], Any]] = [lambda: None] * 50
    CooperativeScheduler[Any]().run(functions)
    assert threading.active_count() == before


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Python loses a Ctrl-C in a callback of its garbage collector, and hypothesis has one."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collections")
def test_ctrl_c_at_any_moment_ends_all() -> None:
    main = threading.get_ident()
    generator = random.Random(0)
    for _ in range(30):
        turns: CooperativeScheduler[None] = CooperativeScheduler()
        count = [0]
        ended: list[int] = []

        def play(turns: CooperativeScheduler[None], count: list[int], ended: list[int]) -> None:
            try:
                while True:
                    count[0] += 1
                    before = count[0]
                    turns.wait_until(lambda: count[0] > before)  # noqa: B023  used at once
            finally:
                ended.append(1)

        delay_s = generator.uniform(0.0, 0.002)
        timer = threading.Timer(delay_s, signal.pthread_kill, [main, signal.SIGINT])
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  the signal must come inside
            timer.start()
            turns.run([partial(play, turns, count, ended)] * 3)
        timer.join()
