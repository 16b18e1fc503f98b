from __future__ import annotations

import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sixfold.core.errors import NonFiniteLossError, RankLostError, RankRaisedError, UserError
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator


@pytest.fixture
def inline() -> InlineEngine:
    return InlineEngine()


def total(comm: Communicator) -> int:
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    received = {rank: np.zeros(1, np.int64) for rank in others}
    comm.exchange(dict.fromkeys(others, np.array([comm.rank + 1])), received)
    return comm.rank + 1 + int(sum(array[0] for array in received.values()))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ranks_meet_and_return_results(inline: InlineEngine, size: int) -> None:
    group = inline.run_ranks(total, size, claim=lambda: 3)
    assert group.results == [size * (size + 1) // 2] * size
    assert group.restarts == 0


def test_ranks_switch_only_in_exchanges(inline: InlineEngine) -> None:
    order: list[str] = []

    def work(comm: Communicator) -> None:
        for turn in range(2):
            order.append(f"{comm.rank} begins {turn}")
            time.sleep(0.01)
            order.append(f"{comm.rank} ends {turn}")
            comm.barrier()

    inline.run_ranks(work, 3)
    assert [line.replace("begins", "ends") for line in order[::2]] == order[1::2]


def test_a_ring_of_large_messages(inline: InlineEngine) -> None:
    def work(comm: Communicator) -> float:
        received = np.zeros(1_000_000, np.float32)
        mine = np.full(1_000_000, comm.rank, np.float32)
        comm.exchange({(comm.rank + 1) % 4: mine}, {(comm.rank - 1) % 4: received})
        return float(received.mean())

    assert inline.run_ranks(work, 4).results == [3.0, 0.0, 1.0, 2.0]


def test_messages_keep_their_order(inline: InlineEngine) -> None:
    def work(comm: Communicator) -> list[int]:
        if comm.rank == 0:
            for number in range(5):
                comm.exchange({1: np.array([number])}, {})
            return []
        received = [np.zeros(1, np.int64) for _ in range(5)]
        for array in received:
            comm.exchange({}, {0: array})
        return [int(array[0]) for array in received]

    assert inline.run_ranks(work, 2).results[1] == [0, 1, 2, 3, 4]


def test_a_deadlock_names_who_waits_for_whom(inline: InlineEngine) -> None:
    def work(comm: Communicator) -> None:
        if comm.rank < 2:
            comm.exchange({}, {1 - comm.rank: np.zeros(1)})

    began = time.monotonic()
    with pytest.raises(RankRaisedError) as info:
        inline.run_ranks(work, 3)
    cause = "deadlock: rank 0 waits for rank 1; rank 1 waits for rank 0"
    assert info.value.failure.cause == cause
    assert time.monotonic() - began < 2.0


def test_waiting_for_a_rank_that_has_finished_is_a_deadlock(inline: InlineEngine) -> None:
    def work(comm: Communicator) -> None:
        if comm.rank == 0:
            comm.exchange({}, {1: np.zeros(1), 2: np.zeros(1)})

    with pytest.raises(RankRaisedError, match=r"rank 1 \(which has finished\) and rank 2"):
        inline.run_ranks(work, 3)


def test_code_that_leans_on_a_buffer_is_a_deadlock(inline: InlineEngine) -> None:
    """Over sockets it would work with small arrays, and hang with large ones."""

    def work(comm: Communicator) -> None:
        comm.exchange({1 - comm.rank: np.zeros(1)}, {})
        comm.exchange({}, {1 - comm.rank: np.zeros(1)})

    with pytest.raises(RankRaisedError, match="deadlock"):
        inline.run_ranks(work, 2)


def test_ranks_that_disagree_about_sizes_find_out(inline: InlineEngine) -> None:
    def work(comm: Communicator) -> None:
        if comm.rank == 0:
            comm.exchange({1: np.zeros(2)}, {})
        else:
            comm.exchange({}, {0: np.zeros(3)})

    with pytest.raises(RankRaisedError, match="rank 0 sent 16 bytes where 24 were expected"):
        inline.run_ranks(work, 2)


def test_an_unknown_peer_is_refused(inline: InlineEngine) -> None:
    with pytest.raises(RankRaisedError, match=r"no rank 2 to talk to, only \[1\]"):
        inline.run_ranks(lambda comm: comm.exchange({2: np.zeros(1)}, {}), 2)


def test_the_first_exception_ends_all(inline: InlineEngine) -> None:
    ended: list[int] = []

    def work(comm: Communicator) -> None:
        try:
            comm.barrier()
            if comm.rank == 1:
                raise LookupError("x")
            comm.barrier()
        finally:
            ended.append(comm.rank)

    with pytest.raises(RankRaisedError, match="LookupError: x") as info:
        inline.run_ranks(work, 3)
    assert info.value.failure.rank == 1
    assert isinstance(info.value.__cause__, LookupError)
    assert sorted(ended) == [0, 1, 2]


def test_errors_of_our_own_arrive_as_they_were(inline: InlineEngine) -> None:
    def wrong(comm: Communicator) -> None:
        raise UserError(["one", "two"])

    def diverged(comm: Communicator) -> None:
        raise NonFiniteLossError("nan")

    with pytest.raises(UserError) as info:
        inline.run_ranks(wrong, 2)
    assert info.value.problems == ("one", "two")
    with pytest.raises(NonFiniteLossError, match="nan"):
        inline.run_ranks(diverged, 2)
    with pytest.raises(NonFiniteLossError, match="nan"):
        inline.pool(lambda _: diverged(Communicator.__new__(Communicator)), [1], workers=1)


def test_each_rank_has_its_own_random_state(inline: InlineEngine) -> None:
    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    def work(comm: Communicator) -> list[list[float]]:
        first = draws()
        comm.barrier()
        return [first, draws()]

    torch.manual_seed(1)
    expected = float(torch.rand(()))
    torch.manual_seed(1)
    alone = inline.run_ranks(work, 1).results[0]
    together = inline.run_ranks(work, 3).results
    assert together[0] == alone
    assert len({str(result) for result in together}) == 3
    assert float(torch.rand(())) == expected


def test_torch_computes_with_one_thread_in_ranks_only(inline: InlineEngine) -> None:
    before = torch.get_num_threads()
    assert inline.run_ranks(lambda comm: torch.get_num_threads(), 3).results == [1, 1, 1]
    assert inline.pool(lambda _: torch.get_num_threads(), [0], workers=1) == [1]
    assert torch.get_num_threads() == before


def test_results_and_events_are_what_other_engines_deliver(inline: InlineEngine) -> None:
    events: list[Any] = []

    def work(comm: Communicator) -> Any:
        comm.report({"pair": (1, 2)})
        return {1: (2, 3)}

    group = inline.run_ranks(work, 1, on_event=lambda rank, event: events.append((rank, event)))
    assert group.results == [{"1": [2, 3]}]
    assert events == [(0, {"pair": [1, 2]})]
    with pytest.raises(RankRaisedError, match="can hand over only plain data"):
        inline.run_ranks(lambda comm: np.zeros(2), 1)


def test_what_ranks_print_is_logged(
    inline: InlineEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(comm: Communicator) -> None:
        print("one")
        comm.barrier()
        print("two", file=sys.stderr)

    log = tmp_path / "log.txt"
    inline.run_ranks(work, 2, log=log)
    assert sorted(log.read_text().splitlines()) == [
        "[rank 0] one",
        "[rank 0] two",
        "[rank 1] one",
        "[rank 1] two",
    ]
    inline.pool(print, ["item"], workers=1, log=log)
    assert log.read_text().endswith("[rank 0] item\n")
    print("back")
    assert capsys.readouterr().out == "back\n"


def test_an_item_waits_for_those_it_comes_after(inline: InlineEngine) -> None:
    order: list[int] = []
    results = inline.pool(
        lambda number: order.append(number) or number,  # type: ignore[func-returns-value]
        range(4),
        workers=2,
        after=[[2], [0], [], []],
    )
    assert order == [2, 0, 1, 3]
    assert results == [0, 1, 2, 3]


def test_items_may_be_added_as_results_come(inline: InlineEngine) -> None:
    def halves(_index: int, result: int) -> list[int]:
        return [result, result] if result > 1 else []

    results = inline.pool(lambda number: number // 2, [8], workers=1, on_done=halves)
    assert results == [4, 2, 2, 1, 1, 1, 1]


def test_a_pool_runs_items_one_after_another(inline: InlineEngine) -> None:
    done: list[tuple[int, int]] = []
    results = inline.pool(
        lambda number: number * 2, [3, 4], workers=8, on_done=lambda *pair: done.append(pair)
    )
    assert results == [6, 8]
    assert done == [(0, 6), (1, 8)]
    with pytest.raises(RankRaisedError, match="ZeroDivisionError"):
        inline.pool(lambda number: 1 // number, [0], workers=1)


def test_ctrl_c_ends_all_ranks(inline: InlineEngine) -> None:
    def work(comm: Communicator) -> None:
        for _ in range(3):
            comm.barrier()
        if comm.rank == 1:
            signal.pthread_kill(main, signal.SIGINT)
        while True:
            comm.barrier()

    main = threading.get_ident()
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        inline.run_ranks(work, 3)
    assert threading.active_count() == before


def test_time_that_others_compute_is_waiting_time(inline: InlineEngine) -> None:
    def work(comm: Communicator) -> float:
        if comm.rank == 1:
            time.sleep(0.1)
        comm.barrier()
        return comm.traffic.waiting_s

    waiting = inline.run_ranks(work, 2).results
    assert waiting[0] > 0.09
    assert waiting[1] < 0.05


def test_no_engine_loses_a_rank_without_saying_so(inline: InlineEngine) -> None:
    def work(comm: Communicator) -> None:
        raise SystemExit(3)

    with pytest.raises(RankLostError, match="SystemExit: 3"):
        inline.run_ranks(work, 1)
