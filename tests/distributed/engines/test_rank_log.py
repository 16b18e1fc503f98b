from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.distributed.engines.rank_log import PipeReader, RankLog, RankWriter
from sixfold.distributed.process_group.faults import TAIL_LINES


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=9)), max_size=30))
def test_lines_of_a_rank_come_whole_however_they_are_cut(pieces: list[tuple[int, bytes]]) -> None:
    log = RankLog(None)
    for rank, data in pieces:
        log.feed(rank, data)
    log.close()
    for rank in range(3):
        text = b"".join(data for number, data in pieces if number == rank)
        lines = text.split(b"\n")
        expected = [line.decode(errors="replace").rstrip("\r") for line in lines]
        if expected[-1] == "" and not lines[-1]:
            expected.pop()
        assert log.tail(rank) == tuple(expected[-TAIL_LINES:])


def test_the_file_is_appended_to_and_every_line_is_tagged(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"before\n")
    log = RankLog(path)
    log.feed(1, b"a\nb")
    log.feed(0, b"\xff\n")
    assert path.read_bytes() == b"before\n[rank 1] a\n[rank 0] \xff\n"
    log.close()
    assert path.read_bytes() == b"before\n[rank 1] a\n[rank 0] \xff\n[rank 1] b\n"


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    log = RankLog(None)
    for _ in range(20):
        log.feed(0, b"x" * 10_000)
    assert 1 <= len(log.tail(0)) <= 3


def test_a_rank_that_begins_anew_has_no_last_words_yet() -> None:
    log = RankLog(None)
    log.feed(0, b"old\n")
    log.begin(0)
    log.feed(0, b"new\n")
    assert log.tail(0) == ("new",)


def test_what_a_rank_printed_before_it_died_may_come_late_and_is_in_the_file_alone(
    tmp_path: Path,
) -> None:
    log = RankLog(tmp_path / "log.txt")
    first = log.begin(0)
    log.feed(0, b"ol", first)
    second = log.begin(0)
    log.feed(0, b"n", second)
    log.feed(0, b"d\nrest", first)
    log.feed(0, b"ew\n", second)
    log.end(0, first)
    log.close()
    assert log.tail(0) == ("new",)
    assert (tmp_path / "log.txt").read_text() == "[rank 0] old\n[rank 0] new\n[rank 0] rest\n"


def test_a_writer_stands_in_for_a_stream() -> None:
    log = RankLog(None)
    print("a", 1, file=RankWriter(log, 4))
    assert log.tail(4) == ("a 1",)


def test_pipes_are_read_to_their_ends() -> None:
    log = RankLog(None)
    pipes = PipeReader(log)
    ends = [pipes.pipe(rank) for rank in range(3)]
    for rank, end in enumerate(ends):
        os.write(end, b"x" * 40_000 + f"\nrank {rank}, no end".encode())
        os.close(end)
        pipes.drain(rank, 5.0)
        assert log.tail(rank)[-1] == f"rank {rank}, no end"
    pipes.close()


def test_a_pipe_that_somebody_keeps_open_does_not_hold_up_the_end() -> None:
    pipes = PipeReader(RankLog(None))
    end = pipes.pipe(0)
    began = time.monotonic()
    pipes.drain(0, 0.05)
    pipes.close()
    assert time.monotonic() - began < 1.0
    os.close(end)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_stops_nobody() -> None:
    log = RankLog(Path("/dev/full"))
    log.feed(0, b"a line\n")
    assert log.tail(0) == ("a line",)
    log.close()
