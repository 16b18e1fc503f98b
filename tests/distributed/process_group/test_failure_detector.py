from __future__ import annotations

from sixfold.distributed.process_group.failure_detector import Heartbeat, Verdict, judge


def verdict(now: float, *heartbeats: Heartbeat, since: float = 0.0) -> Verdict | None:
    return judge(dict(enumerate(heartbeats)), now, hang_s=60.0, stall_s=600.0, since=since)


def test_a_lively_group_is_left_alone() -> None:
    assert (
        verdict(100.0, Heartbeat(seen=99.5, moved=99.0), Heartbeat(seen=99.0, moved=99.0)) is None
    )
    assert verdict(100.0) is None


def test_silence_is_held_against_a_rank_only_while_the_launcher_listens() -> None:
    assert verdict(100.0, Heartbeat(seen=10.0), Heartbeat(seen=99.0)) == Verdict(
        0, "no sign of life for 60 s"
    )
    assert verdict(100.0, Heartbeat(seen=10.0), Heartbeat(seen=99.0), since=95.0) is None


def test_a_process_that_is_stopped_is_named_soon() -> None:
    beats = {0: Heartbeat(seen=94.0), 1: Heartbeat(seen=96.0)}
    stopped = Verdict(0, "no sign of life for 5 s")
    for is_stopped, expected in (({0}, stopped), ({1}, None)):
        found = judge(
            beats,
            100.0,
            hang_s=60.0,
            stall_s=600.0,
            since=0.0,
            is_stopped=is_stopped.__contains__,
        )
        assert found == expected


def test_a_rank_that_has_finished_may_be_silent() -> None:
    assert verdict(100.0, Heartbeat(seen=10.0, done=True), Heartbeat(seen=99.0, moved=99.0)) is None


def test_all_waiting_is_a_deadlock() -> None:
    first = Heartbeat(seen=99.0, moved=30.0, waiting_for=(1,))
    second = Heartbeat(seen=99.0, moved=35.0, waiting_for=(0,))
    assert verdict(94.0, first, second) is None
    found = verdict(99.0, first, second)
    assert found is not None
    assert found.cause == "deadlock, no byte moved for 60 s: rank 0 for 1, rank 1 for 0"


def test_the_rank_that_most_others_wait_for_is_guilty_of_a_stall() -> None:
    ranks = [
        Heartbeat(seen=999.0, moved=300.0, waiting_for=(2,)),
        Heartbeat(seen=999.0, moved=300.0, waiting_for=(0, 2)),
        Heartbeat(seen=999.0, moved=300.0),
        Heartbeat(seen=999.0, moved=300.0),
    ]
    assert verdict(899.0, *ranks) is None
    found = verdict(999.0, *ranks)
    assert found is not None
    assert (found.rank, found.wants_stack) == (2, True)
    assert found.cause == "it has made no exchange for 600 s; waiting for it: 0, 1"


def test_ranks_that_all_compute_may_do_so_for_ever() -> None:
    assert verdict(9999.0, Heartbeat(seen=9999.0), Heartbeat(seen=9999.0)) is None


def test_progress_is_seen_from_the_count() -> None:
    heartbeat = Heartbeat(seen=0.0)
    heartbeat.beat(5.0, 100, (1,))
    heartbeat.beat(6.0, 100, (1,))
    assert (heartbeat.seen, heartbeat.moved, heartbeat.waiting_for) == (6.0, 5.0, (1,))
