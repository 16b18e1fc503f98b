from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.core.errors import PeerLostError
from sixfold.distributed.process_group.communicator import Buffer
from sixfold.distributed.process_group.mesh import Mesh, share_memory


@contextmanager
def meshes(size: int, *, spin: bool = False, share: bool = False) -> Iterator[list[Mesh]]:
    """All ranks' meshes over real TCP connections, with or without shared memory."""
    ends: list[dict[int, socket.socket]] = [{} for _ in range(size)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for low, high in itertools.combinations(range(size), 2):
            ends[high][low] = socket.create_connection(listener.getsockname())
            ends[low][high], _ = listener.accept()
    boxes = run_all([partial(share_memory, sockets) for sockets in ends]) if share else [{}] * size
    made = [
        Mesh(sockets, spin=spin, mailboxes=shared)
        for sockets, shared in zip(ends, boxes, strict=True)
    ]
    try:
        yield made
    finally:
        for mesh in made:
            mesh.close()


def run_all(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run in threads; return each one's value or exception."""
    outcomes: list[Any] = [None] * len(functions)

    def run(number: int) -> None:
        try:
            outcomes[number] = functions[number]()
        except Exception as error:
            outcomes[number] = error

    threads = [
        threading.Thread(target=run, args=(number,), daemon=True)
        for number in range(len(functions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
        assert not thread.is_alive(), "deadlock"
    return outcomes


def content(turn: int, sender: int, receiver: int, size: int) -> Buffer:
    start = 31 * turn + 7 * sender + receiver
    return ((np.arange(start, start + size)) % 251).astype(np.uint8)


Rounds = list[dict[tuple[int, int], int]]

SIZES = st.sampled_from([0, 1, 7, 8, 9, 1000, 16_384, 65_536, 300_001, 1_000_000, 1_100_000])


@st.composite
def patterns(draw: st.DrawFn) -> tuple[int, Rounds]:
    """A number of ranks, and rounds of messages (sender, receiver) -> bytes."""
    size = draw(st.integers(2, 5))
    pairs = list(itertools.permutations(range(size), 2))
    messages = st.dictionaries(st.sampled_from(pairs), SIZES, max_size=len(pairs))
    return size, draw(st.lists(messages, min_size=1, max_size=3))


def play(mesh: Mesh, rank: int, rounds: Rounds) -> None:
    for turn, messages in enumerate(rounds):
        sends = {
            receiver: content(turn, rank, receiver, size)
            for (sender, receiver), size in messages.items()
            if sender == rank and size
        }
        receives = {
            sender: np.zeros(size, np.uint8)
            for (sender, receiver), size in messages.items()
            if receiver == rank and size
        }
        mesh.exchange(sends, receives)
        for sender, array in receives.items():
            np.testing.assert_array_equal(array, content(turn, sender, rank, len(array)))


@given(patterns(), st.booleans())
def test_any_pattern_arrives_whole_and_in_order(pattern: tuple[int, Rounds], share: bool) -> None:
    size, rounds = pattern
    with meshes(size, share=share) as made:
        players = [partial(play, made[rank], rank, rounds) for rank in range(size)]
        assert run_all(players) == [None] * size


@pytest.mark.parametrize("spin", [False, True])
def test_a_ring_of_large_messages_does_not_deadlock(spin: bool) -> None:
    """Everybody sends 8 MB to the next before anybody receives: blocking sends would hang."""
    size, count = 4, 8_000_000
    with meshes(size, spin=spin) as made:

        def shift(rank: int) -> float:
            received = np.zeros(count, np.uint8)
            made[rank].exchange(
                {(rank + 1) % size: np.full(count, rank, np.uint8)}, {(rank - 1) % size: received}
            )
            return float(received.mean())

        assert run_all([partial(shift, rank) for rank in range(size)]) == [3, 0, 1, 2]


def test_one_sided_calls_meet_a_combined_one() -> None:
    array = np.arange(1_000_000.0)
    received = [np.zeros_like(array), np.zeros_like(array)]
    with meshes(2) as (left, right):

        def in_two_steps() -> None:
            left.exchange({1: array}, {})
            left.exchange({}, {1: received[0]})

        run_all([in_two_steps, lambda: right.exchange({0: 2 * array}, {0: received[1]})])
    np.testing.assert_array_equal(received[1], array)
    np.testing.assert_array_equal(received[0], 2 * array)


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.zeros((3, 4, 5), np.float16),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.arange(10)[2:7],
    ],
    ids=["scalar", "float16", "bool", "complex", "slice"],
)
def test_any_dtype_and_shape_travels(array: Buffer) -> None:
    target = np.empty_like(array)
    with meshes(2) as (left, right):
        run_all([lambda: left.exchange({1: array}, {}), lambda: right.exchange({}, {0: target})])
    np.testing.assert_array_equal(target, array)


def test_ranks_that_disagree_about_sizes_find_out() -> None:
    with meshes(2) as (left, right):
        outcomes = run_all(
            [
                lambda: left.exchange({1: np.zeros(100, np.uint8)}, {}),
                lambda: right.exchange({}, {0: np.zeros(400, np.uint8)}),
            ]
        )
    assert isinstance(outcomes[1], RuntimeError)
    assert "rank 0 sent 100 bytes where 400 were expected" in str(outcomes[1])


def test_an_unknown_peer_is_refused() -> None:
    with meshes(2) as (left, _), pytest.raises(ValueError, match=r"no rank 5 .* only \[1\]"):
        left.exchange({5: np.zeros(1)}, {})


@pytest.mark.parametrize("when", ["before", "during"])
@pytest.mark.parametrize("direction", ["send", "receive"])
def test_a_peer_that_goes_is_named(when: str, direction: str) -> None:
    array = np.zeros(50_000_000, np.uint8)
    with meshes(3) as (left, _, right):
        if when == "before":
            right.close()

        def go() -> None:
            time.sleep(0.1)
            right.close()

        def work() -> None:
            if direction == "send":
                left.exchange({2: array}, {})
            else:
                left.exchange({}, {2: array})

        outcome = run_all([work, go])[0]
    assert isinstance(outcome, PeerLostError)
    assert outcome.peer == 2


def test_shutting_wakes_a_waiting_exchange() -> None:
    with meshes(2) as (left, _):

        def shut() -> None:
            time.sleep(0.1)
            assert left.waiting_for == (1,)
            left.shut()

        outcomes = run_all([lambda: left.exchange({}, {1: np.zeros(1)}), shut])
    assert isinstance(outcomes[0], PeerLostError)
    assert outcomes[1] is None


def test_time_without_a_byte_is_waiting_time() -> None:
    with meshes(2) as (left, right):

        def late() -> tuple[float, float]:
            time.sleep(0.2)
            return right.exchange({0: np.zeros(10)}, {})

        moved, _ = run_all([lambda: left.exchange({}, {1: np.zeros(10)}), late])
        communication_s, waiting_s = moved
        assert 0.15 < waiting_s < 1.0
        assert communication_s < 0.1
        assert left.waiting_for == ()
        assert left.progress == 8 + 80 + 1


@pytest.mark.parametrize("share", [False, True])
def test_exchanges_that_have_begun_keep_their_order_while_others_go_on(share: bool) -> None:
    """The large one does not fit into what lies between two ranks."""
    sizes = [3, 2_000_000, 5]

    def run(mesh: Mesh, peer: int) -> list[list[float]]:
        received = [np.zeros(size) for size in sizes]
        ends = [
            mesh.start({peer: np.full(size, 10.0 * number + peer)}, {peer: into})
            for number, (size, into) in enumerate(zip(sizes, received, strict=True))
        ]
        between = np.zeros(2)
        mesh.exchange({peer: np.full(2, 90.0 + peer)}, {peer: between})
        for end in ends:
            end()
        return [[float(array[0]), float(array[-1])] for array in (*received, between)]

    with meshes(2, share=share) as made:
        found = run_all([partial(run, mesh, 1 - rank) for rank, mesh in enumerate(made)])
    for rank in range(2):
        assert found[rank] == [[start + rank] * 2 for start in (0.0, 10.0, 20.0, 90.0)]
