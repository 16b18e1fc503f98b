"""Frames over a pair of sockets: what arrives, and what is refused."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sixfold.training.strategies.param_server.messages import BrokenFrameError, receive, send

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair()
    with left, right:
        right.settimeout(10.0)
        yield left, right


def test_plain_data_and_arrays_arrive_as_they_were_sent(pair: Pair) -> None:
    arrays: list[NDArray[Any]] = [
        np.arange(5, dtype=np.float32),
        np.empty(0),
        np.array([1, 2], np.int64),
    ]
    sent = send(pair[0], {"op": "push", "lr": 0.1}, arrays)
    header, found, came = receive(pair[1], most_bytes=1000)
    assert header == {"op": "push", "lr": 0.1}
    for array, other in zip(arrays, found, strict=True):
        assert array.dtype == other.dtype
        assert np.array_equal(array, other)
    assert sent == came


def test_arrays_larger_than_a_socket_buffer_arrive_whole(pair: Pair) -> None:
    large = np.random.default_rng(0).random(2_000_000)
    thread = threading.Thread(target=send, args=(pair[0], {}, [large, large[:7]]))
    thread.start()
    _, found, _ = receive(pair[1], most_bytes=1 << 25)
    thread.join()
    assert np.array_equal(found[0], large)
    assert np.array_equal(found[1], large[:7])


def test_the_end_of_the_conversation_is_told(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(EOFError):
        receive(pair[1], most_bytes=10)


@pytest.mark.parametrize(
    "header",
    [
        {"arrays": [["float32", 1_000_000]]},
        {"arrays": [["object", 1]]},
        {"arrays": [["float32", -1]]},
        {"arrays": 7},
        {},
        [],
    ],
)
def test_what_is_too_large_or_no_frame_is_refused_before_it_is_read(
    pair: Pair, header: object
) -> None:
    body = json.dumps(header).encode()
    pair[0].sendall(struct.pack("!I", len(body)) + body)
    with pytest.raises(BrokenFrameError):
        receive(pair[1], most_bytes=1000)


def test_an_endless_header_is_refused(pair: Pair) -> None:
    pair[0].sendall(struct.pack("!I", 0xFFFFFFFF))
    with pytest.raises(BrokenFrameError, match="4294967295"):
        receive(pair[1], most_bytes=1000)
