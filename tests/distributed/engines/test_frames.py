from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from sixfold.distributed.engines import frames

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 5_000_000])
def test_objects_of_any_size_arrive(pair: Pair, size: int) -> None:
    message = {"body": os.urandom(size), "more": [1, None]}
    thread = threading.Thread(target=frames.send, args=(pair[0], message))
    thread.start()
    assert frames.receive(pair[1]) == (message, [])
    thread.join()


def test_descriptors_travel_along(pair: Pair) -> None:
    reading, writing = os.pipe()
    frames.send(pair[0], "take it", [writing])
    frames.send(pair[0], "nothing")
    os.close(writing)
    received = frames.receive(pair[1])
    assert received is not None
    message, (duplicate,) = received
    assert message == "take it"
    os.write(duplicate, b"through")
    os.close(duplicate)
    assert os.read(reading, 100) == b"through"
    assert os.read(reading, 100) == b""
    os.close(reading)
    assert frames.receive(pair[1]) == ("nothing", [])


@pytest.mark.parametrize("kept", [0, 3, 8, 12])
def test_a_message_that_breaks_off_is_the_end(pair: Pair, kept: int) -> None:
    frames.send(pair[0], "a message")
    whole = pair[1].recv(1000)
    left, right = socket.socketpair()
    with right:
        left.sendall(whole[:kept])
        left.close()
        assert frames.receive(right) is None


def test_a_closed_end_is_told_to_the_sender(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(OSError):
        frames.send(pair[0], "anybody?")
