from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sixfold.distributed.process_group import Communicator, wire
from sixfold.distributed.process_group.rendezvous import Rendezvous

if TYPE_CHECKING:
    from tests.distributed.process_group.conftest import ThreadGroup

GroupOf = Callable[..., "ThreadGroup"]


class Puppet:
    """A rank of which the test pulls every string."""

    def __init__(
        self, rendezvous: Rendezvous, rank: int, *, generation: int = 0, size: int | None = None
    ) -> None:
        self.connection = wire.Connection(wire.connect(rendezvous.address, rendezvous.secret))
        self.say(
            "join",
            rank=rank,
            size=rendezvous.size if size is None else size,
            generation=generation,
            host=f"host{rank}",
            pid=1000 + rank,
            address=["127.0.0.1", 9],
            age_s=0.5,
        )

    def say(self, kind: str, **facts: Any) -> None:
        self.connection.send({"kind": kind, **facts})

    def hear(self) -> dict[str, Any] | None:
        return self.connection.receive()

    def leave(self) -> None:
        self.connection.shut()
        self.connection.close()


@pytest.fixture
def puppets(group_of: GroupOf, request: pytest.FixtureRequest) -> Callable[..., list[Puppet]]:
    """Lets all ranks of a process group join as puppets."""

    def join_all(group: ThreadGroup, **options: Any) -> list[Puppet]:
        made = []
        for rank in range(group.rendezvous.size):
            made.append(Puppet(group.rendezvous, rank, **options))
            request.addfinalizer(made[-1].leave)
        generation = options.get("generation", 0)
        group.poll_until(
            lambda: (
                group.rendezvous.now.number == generation
                and len(group.rendezvous.now.members) == group.rendezvous.size
            )
        )
        return made

    return join_all


Puppets = Callable[..., list[Puppet]]


def test_all_are_told_where_the_others_are(group_of: GroupOf, puppets: Puppets) -> None:
    for puppet in puppets(group_of(3, claim=lambda: 7)):
        assert puppet.hear() == {
            "kind": "start",
            "attempt": 7,
            "peers": [["127.0.0.1", 9]] * 3,
        }


def test_callbacks_run_in_the_thread_that_polls(group_of: GroupOf, puppets: Puppets) -> None:
    import threading

    threads: list[int] = []
    events: list[Any] = []

    def claim() -> int:
        threads.append(threading.get_ident())
        return 3

    def on_event(rank: int, event: Any) -> None:
        threads.append(threading.get_ident())
        events.append((rank, event))

    group = group_of(2, claim=claim, on_event=on_event)
    puppets(group)[1].say("event", event={"loss": 0.5})
    group.poll_until(lambda: bool(events))
    assert events == [(1, {"loss": 0.5})]
    assert set(threads) == {threading.get_ident()}


def test_what_a_callback_raises_comes_out_of_poll(group_of: GroupOf) -> None:
    def claim() -> int:
        raise LookupError("no directory")

    group = group_of(1, claim=claim)
    puppet = Puppet(group.rendezvous, 0)
    with pytest.raises(LookupError, match="no directory"):
        group.poll_until(lambda: False)
    puppet.leave()


def test_results_are_complete_when_the_last_has_come(group_of: GroupOf, puppets: Puppets) -> None:
    group = group_of(2)
    first, second = puppets(group)
    second.say("result", value={"b": 2})
    group.poll_until(lambda: group.rendezvous.now.members[1].done)
    assert not group.rendezvous.now.finished
    second.leave()
    first.say("result", value=None)
    group.poll_until(lambda: group.rendezvous.now.finished)
    assert group.rendezvous.now.results == [None, {"b": 2}]
    group.rendezvous.died(1, "exited with status 0", generation=0)
    group.rendezvous.poll(0.0)
    assert group.rendezvous.now.fault is None


def test_a_broken_connection_alone_is_believed_after_a_while(
    group_of: GroupOf, puppets: Puppets
) -> None:
    group = group_of(2, graces_s={"peer": 0.2, "connection": 0.2})
    began = time.monotonic()
    puppets(group)[1].leave()
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    assert 0.15 < time.monotonic() - began < 2.0
    fault = group.rendezvous.now.fault
    assert fault is not None
    assert (fault.rank, fault.host, fault.kind) == (1, "host1", "lost")
    assert fault.cause.startswith("its connection broke (process 1001 was killed")


def test_an_exit_status_is_better_than_earlier_news(group_of: GroupOf, puppets: Puppets) -> None:
    group = group_of(3)
    ranks = puppets(group)
    complaint = {"kind": "peer", "rank": 0, "host": "host0", "cause": "rank 1 is gone", "peer": 1}
    ranks[0].say("error", fault=complaint)
    ranks[1].leave()
    group.poll_until(lambda: group.rendezvous.now.members[0].done)
    group.rendezvous.died(0, "exited with status 1", generation=0)  # after its complaint
    group.rendezvous.died(1, "killed by signal 9 (SIGKILL)", generation=0)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    fault = group.rendezvous.now.fault
    assert fault is not None
    assert (fault.rank, fault.cause) == (1, "killed by signal 9 (SIGKILL)")


def test_a_complaint_alone_accuses_the_peer(group_of: GroupOf, puppets: Puppets) -> None:
    group = group_of(2, graces_s={"peer": 0.1, "connection": 0.1})
    ranks = puppets(group)
    complaint = {"kind": "peer", "rank": 0, "host": "host0", "cause": "rank 1 is gone", "peer": 1}
    ranks[0].say("error", fault=complaint)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    fault = group.rendezvous.now.fault
    assert fault is not None
    assert (fault.rank, fault.host) == (1, "host1")
    assert fault.cause == "lost by rank 0: rank 1 is gone"


def test_who_wants_to_talk_to_a_rank_that_has_finished_is_wrong(group_of: GroupOf) -> None:
    """Starting again would not help, so it is an error of the function and no lost rank."""

    def work(comm: Communicator) -> None:
        if comm.rank == 0:
            comm.exchange({}, {1: np.zeros(1)})

    group = group_of(2)
    group.start_all(work)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    fault = group.rendezvous.now.fault
    assert fault is not None
    assert (fault.kind, fault.rank) == ("raised", 1)
    assert fault.cause == "rank 0 wanted an exchange with it after it had finished"


def test_a_fault_ends_all_connections(group_of: GroupOf, puppets: Puppets) -> None:
    group = group_of(2)
    ranks = puppets(group)
    assert ranks[0].hear() is not None
    group.rendezvous.died(1, "exited with status 3", generation=0)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    assert ranks[0].hear() is None


def test_death_before_anybody_joined_is_a_fault_too(group_of: GroupOf) -> None:
    group = group_of(2)
    group.rendezvous.admit(0)
    group.rendezvous.died(1, "exited with status 1", generation=0)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    assert group.rendezvous.now.fault is not None
    assert group.rendezvous.now.fault.host == socket.gethostname()


def test_a_higher_generation_ends_the_lower_ones(group_of: GroupOf, puppets: Puppets) -> None:
    numbers = iter([10, 11])
    group = group_of(2, claim=lambda: next(numbers))
    old = puppets(group, generation=0)
    assert [rank.hear() is not None for rank in old] == [True, True]
    new = puppets(group, generation=4)
    assert [rank.hear() for rank in old] == [None, None]
    start = new[0].hear()
    assert start is not None
    assert start["attempt"] == 11
    assert group.rendezvous.restarts == 1


def test_news_of_an_old_generation_is_no_news(group_of: GroupOf, puppets: Puppets) -> None:
    group = group_of(2, graces_s={"peer": 0.1, "connection": 0.1})
    old = puppets(group, generation=0)
    puppets(group, generation=1)
    old[0].say("result", value="late")
    group.rendezvous.died(1, "killed", generation=0)
    for rank in old:
        rank.leave()
    for _ in range(20):
        group.rendezvous.poll(0.01)
    assert group.rendezvous.now.fault is None
    assert not group.rendezvous.now.members[0].done


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rank": 0, "generation": 0}, "generation 0 was superseded by 1"),
        ({"rank": 2, "generation": 1}, "there is no rank 2 of 2, only 2 ranks"),
        ({"rank": 0, "generation": 2, "size": 3}, "there is no rank 0 of 3, only 2 ranks"),
    ],
)
def test_who_does_not_belong_is_refused_with_a_reason(
    group_of: GroupOf, options: dict[str, int], reason: str
) -> None:
    group = group_of(2)
    group.rendezvous.admit(1)
    member = Puppet(group.rendezvous, 1, generation=1)
    group.poll_until(lambda: 1 in group.rendezvous.now.members)
    stranger = Puppet(group.rendezvous, **options)
    for _ in range(10):
        group.rendezvous.poll(0.02)
    assert stranger.hear() == {"kind": "refuse", "reason": reason}
    assert stranger.hear() is None
    member.leave()
    stranger.leave()


@pytest.mark.parametrize("least", [1, None])
def test_a_second_process_at_the_same_rank_is_not_heard(
    group_of: GroupOf, puppets: Puppets, least: int | None
) -> None:
    group = group_of(1, least=least)
    first = puppets(group)[0]
    second = Puppet(group.rendezvous, 0)
    second.say("error", fault={"kind": "raised", "rank": 0, "host": "h", "cause": "no"})
    second.say("result", value=1, view=1)
    for _ in range(10):
        group.rendezvous.poll(0.02)
    assert not group.rendezvous.now.over
    second.leave()
    first.say("result", value=2, view=1)
    group.poll_until(lambda: group.rendezvous.now.finished)
    assert group.rendezvous.now.results == [2]


def test_nobody_joins_a_run_that_has_failed_for_good(group_of: GroupOf, puppets: Puppets) -> None:
    group = group_of(1)
    fault = {"kind": "raised", "rank": 0, "host": "h", "cause": "ValueError: x"}
    puppets(group)[0].say("error", fault=fault)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    late = Puppet(group.rendezvous, 0, generation=1)
    for _ in range(10):
        group.rendezvous.poll(0.02)
    assert late.hear() == {"kind": "refuse", "reason": "the run has failed: ValueError: x"}
    late.leave()


def test_a_silent_rank_is_given_up(group_of: GroupOf, puppets: Puppets) -> None:
    group = group_of(2, hang_s=0.3)
    ranks = puppets(group)
    ranks[1].say("alive", progress=1, waiting_for=[], stack=["in a loop"])

    def over() -> bool:
        ranks[0].say("alive", progress=1, waiting_for=[], stack=[])
        return group.rendezvous.now.fault is not None

    group.poll_until(over)
    assert group.rendezvous.now.fault is not None
    assert group.rendezvous.now.fault.rank == 1
    assert group.rendezvous.now.fault.cause.startswith("no sign of life for 0.3 s (process ")
    assert group.rendezvous.now.fault.log_tail[1:] == ("in a loop",)


def test_silence_while_the_launcher_was_away_does_not_count(
    group_of: GroupOf, puppets: Puppets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.process_group.rendezvous.INATTENTION_S", 0.2)
    group = group_of(1, hang_s=0.3)
    rank = puppets(group)[0]
    time.sleep(0.5)
    group.rendezvous.poll(0.0)
    assert group.rendezvous.now.fault is None
    rank.say("result", value=1)
    group.poll_until(lambda: group.rendezvous.now.finished)


def test_a_rank_that_keeps_the_others_waiting_is_named_with_its_stack(group_of: GroupOf) -> None:
    def work(comm: Communicator) -> None:
        if comm.rank == 1:
            loop_for_ever(comm)
        comm.barrier()

    def loop_for_ever(comm: Communicator) -> None:
        while not comm.should_stop():
            time.sleep(0.01)

    group = group_of(3, stall_s=0.3)
    group.start_all(work)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    fault = group.rendezvous.now.fault
    assert fault is not None
    assert fault.rank == 1
    assert fault.cause.startswith(
        "it has made no exchange for 0.3 s; waiting for it: 0, 2 "
        f"(process {os.getpid()}: "  # of this test's, in threads of which the ranks run
    )
    assert any("loop_for_ever" in line for line in fault.log_tail)


@pytest.mark.full
def test_a_deadlock_among_ranks_is_told(group_of: GroupOf) -> None:
    def work(comm: Communicator) -> None:
        comm.exchange({}, {(comm.rank + 1) % 3: np.zeros(1)})

    group = group_of(3, hang_s=2.0)
    group.start_all(work)
    group.poll_until(lambda: group.rendezvous.now.fault is not None)
    assert group.rendezvous.now.fault is not None
    assert group.rendezvous.now.fault.cause.startswith(
        "deadlock, no byte moved for 2 s: rank 0 for 1, rank 1 for 2, rank 2 for 0 (process "
    )


def test_all_are_asked_to_stop_those_that_join_later_too(group_of: GroupOf) -> None:
    def work(comm: Communicator) -> int:
        steps = 0
        while not comm.should_stop():
            steps += 1
            time.sleep(0.01)
        return steps

    group = group_of(2)
    group.start(work, 0)
    group.poll_until(lambda: bool(group.rendezvous.now.members))
    group.rendezvous.stop()
    group.start(work, 1)
    group.poll_until(lambda: group.rendezvous.now.finished)


def test_a_launcher_that_cannot_let_in_a_rank_says_so_at_once(
    group_of: GroupOf, no_thread_for_callers: Callable[[int], None]
) -> None:
    group = group_of(1)
    no_thread_for_callers(0)
    group.start(lambda _: None, 0)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        group.poll_until(lambda: bool(group.rendezvous.now.members))


def test_closing_twice_is_harmless(group_of: GroupOf) -> None:
    group = group_of(1)
    group.rendezvous.close()
    group.rendezvous.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(group.rendezvous.address)
