from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sixfold.core.errors import PeerLostError, UserError
from sixfold.distributed.process_group import Communicator, wire
from sixfold.distributed.process_group.control import ORPHAN_STATUS, AttemptEndedError
from sixfold.distributed.process_group.membership import Place, run_rank

if TYPE_CHECKING:
    from tests.distributed.process_group.conftest import ThreadGroup

GroupOf = Callable[..., "ThreadGroup"]


def total(comm: Communicator) -> int:
    """A sum by way of everybody."""
    mine = np.array([comm.rank + 1])
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    received = {rank: np.zeros(1, np.int64) for rank in others}
    comm.exchange(dict.fromkeys(others, mine), received)
    return int(mine[0] + sum(array[0] for array in received.values()))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ranks_meet_and_hand_over_their_results(group_of: GroupOf, size: int) -> None:
    group = group_of(size)
    assert group.run(total) == [size * (size + 1) // 2] * size
    assert group.rendezvous.now.met_at is not None
    assert sorted(group.rendezvous.now.members) == list(range(size))
    assert group.errors == {}


def test_a_rank_knows_who_it_is(group_of: GroupOf) -> None:
    group = group_of(3, claim=lambda: 17)
    worlds = group.run(lambda comm: [comm.rank, comm.size, comm.host, comm.attempt])
    assert worlds == [[rank, 3, "here", 17] for rank in range(3)]


def test_traffic_is_counted(group_of: GroupOf) -> None:
    def work(comm: Communicator) -> list[int]:
        total(comm)
        return [comm.traffic.exchanges, comm.traffic.bytes_sent]

    assert group_of(3).run(work) == [[1, 16]] * 3


def test_a_rank_alone_has_nobody_to_talk_to(group_of: GroupOf) -> None:
    def work(comm: Communicator) -> None:
        comm.barrier()
        comm.exchange({1: np.zeros(1)}, {})

    group = group_of(1)
    group.start_all(work)
    group.poll_until(lambda: 0 in group.errors)
    assert "no rank 1 to talk to" in str(group.errors[0])


def test_global_generators_start_from_the_rank(group_of: GroupOf) -> None:
    def work(comm: Communicator) -> float:
        return random.random()

    group = group_of(1)
    assert group.run(work) == [random.Random(0).random()]


def test_an_exception_reaches_the_launcher_and_the_caller(group_of: GroupOf) -> None:
    def work(comm: Communicator) -> None:
        if comm.rank == 1:
            raise UserError(["first", "second"])
        comm.barrier()

    group = group_of(3)
    group.start_all(work)
    group.poll_until(lambda: len(group.errors) == 3)
    fault = group.rendezvous.now.fault
    assert fault is not None
    assert (fault.kind, fault.rank, fault.problems) == ("user", 1, ("first", "second"))
    assert isinstance(group.errors[1], UserError)
    assert isinstance(group.errors[0], PeerLostError)


@pytest.mark.parametrize("result", [np.zeros(2), {1, 2}, object()])
def test_a_result_that_is_not_plain_is_explained(group_of: GroupOf, result: Any) -> None:
    group = group_of(1)
    group.start_all(lambda comm: result)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    assert group.rendezvous.now.fault is not None
    assert "can hand over only plain data" in group.rendezvous.now.fault.cause


def test_a_rank_without_the_secret_is_told_off(group_of: GroupOf) -> None:
    group = group_of(1)
    place = Place(address=group.rendezvous.address, secret=b"wrong", rank=0, size=1)
    with pytest.raises(AttemptEndedError, match="nobody answers"):
        run_rank(total, place)
    assert group.run(total) == [1]


def test_the_launcher_closing_ends_a_rank_that_waits(group_of: GroupOf) -> None:
    group = group_of(2)
    group.start(total, 0)  # and never rank 1
    group.poll_until(lambda: bool(group.rendezvous.now.members))
    group.close()
    assert isinstance(group.errors[0], AttemptEndedError)


def test_a_superseded_rank_cannot_go_on(group_of: GroupOf) -> None:
    """Neither by exchanges nor by asking; not even when it had only been computing."""
    group = group_of(2)
    attempts: list[str] = []

    def zombie(comm: Communicator) -> None:
        while comm.attempt == 0:
            time.sleep(0.01)
            try:
                comm.should_stop()
            except AttemptEndedError:
                attempts.append("asked")
                total(comm)

    group.start_all(zombie, generation=0)
    group.poll_until(lambda: group.rendezvous.now.met_at is not None)
    first = list(group._threads)
    group.start_all(total, generation=1)
    group.poll_until(lambda: group.rendezvous.now.finished)
    for thread in first:
        thread.join(5.0)
    assert attempts == ["asked"] * 2
    assert all(isinstance(error, AttemptEndedError) for error in group.errors.values())
    assert group.rendezvous.now.results == [3, 3]
    assert group.rendezvous.restarts == 1


def test_strangers_do_not_disturb_a_run(group_of: GroupOf) -> None:
    group = group_of(2)
    foreign_files = [socket.create_connection(group.rendezvous.address) for _ in range(10)]
    for stranger in foreign_files[:5]:
        stranger.sendall(b"\x00\x00\x00\x02{}" * 100)

    def work(comm: Communicator) -> int:
        time.sleep(0.2)
        return total(comm)

    try:
        assert group.run(work) == [3, 3]
    finally:
        for stranger in foreign_files:
            stranger.close()


def test_a_peer_that_does_not_call_is_named(
    group_of: GroupOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.process_group.membership.MEET_S", 0.2)
    group = group_of(2)
    silent = wire.Connection(wire.connect(group.rendezvous.address, group.rendezvous.secret))
    message = {"kind": "join", "rank": 1, "size": 2, "generation": 0, "host": "h", "pid": 1}
    silent.send(message | {"address": ["127.0.0.1", 9], "age_s": 0.0})
    group.start(total, 0)
    group.poll_until(lambda: 0 in group.errors)
    assert "rank 1 is gone: it did not call within 0.2 s" in str(group.errors[0])
    silent.shut()
    silent.close()


def test_a_rank_that_cannot_let_in_a_peer_says_so_at_once(
    group_of: GroupOf, no_thread_for_callers: Callable[[int], None]
) -> None:
    """Not that the peer did not call, after half a minute."""
    group = group_of(2)
    no_thread_for_callers(2)  # the launcher's two
    group.start_all(total)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    assert group.rendezvous.now.fault is not None
    assert "can't start new thread" in group.rendezvous.now.fault.cause
    assert not group.rendezvous.now.fault.retryable


def test_a_process_ends_with_its_launcher(group_of: GroupOf) -> None:
    """A rank that only computes, never exchanges, and would never look."""
    group = group_of(1)
    host, port = group.rendezvous.address
    code = (
        "import time\n"
        "from sixfold.distributed.process_group.membership import Place, run_rank\n"
        f"place = Place(address=({host!r}, {port}), secret={group.rendezvous.secret!r}, "
        "rank=0, size=1)\n"
        "run_rank(lambda comm: time.sleep(60), place, exit_when_orphaned=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    group.poll_until(lambda: group.rendezvous.now.met_at is not None)
    group.close()
    assert process.wait(5.0) == ORPHAN_STATUS
