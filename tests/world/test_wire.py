from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.world import wire

SECRET = b"s" * 32


@pytest.fixture
def door() -> Iterator[tuple[wire.Door, list[socket.socket]]]:
    entered: list[socket.socket] = []
    door = wire.Door("127.0.0.1", SECRET, entered.append, handshake_s=0.5)
    yield door, entered
    door.close()
    for connection in entered:
        connection.close()


def wait_for(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_who_knows_the_secret_enters(door: tuple[wire.Door, list[socket.socket]]) -> None:
    with wire.connect(door[0].address, SECRET) as connection:
        wait_for(lambda: door[1])
        connection.sendall(wire.encode({"a": [1, 2.5, None, "ü"]}))
        assert wire.receive(door[1][0]) == {"a": [1, 2.5, None, "ü"]}


def test_who_does_not_is_refused(door: tuple[wire.Door, list[socket.socket]]) -> None:
    with pytest.raises(ConnectionError):
        wire.connect(door[0].address, b"x" * 32)
    assert not door[1]


def test_a_caller_refuses_a_listener_that_does_not_know_the_secret() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def impostor() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(wire.MAGIC + secrets.token_bytes(wire.NONCE_BYTES))
                connection.recv(1000)
                connection.sendall(secrets.token_bytes(wire.DIGEST_BYTES))

        thread = threading.Thread(target=impostor)
        thread.start()
        with pytest.raises(wire.HandshakeError, match="does not know the secret"):
            wire.connect(listener.getsockname(), SECRET)
        thread.join()


def test_a_listener_cannot_be_fed_its_own_proof(
    door: tuple[wire.Door, list[socket.socket]],
) -> None:
    """A man in the middle without the secret, who plays two sessions against each other."""
    with socket.create_connection(door[0].address) as first:
        hello = first.recv(40)
        nonce = hello[len(wire.MAGIC) :]
        first.sendall(wire.MAGIC + nonce + secrets.token_bytes(wire.DIGEST_BYTES))
        assert first.recv(100) == b""
    assert not door[1]


def test_a_caller_notices_that_it_speaks_to_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def other() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 12)
                connection.recv(1000)

        thread = threading.Thread(target=other)
        thread.start()
        with pytest.raises(wire.HandshakeError, match="is no Sixfold"):
            wire.connect(listener.getsockname(), SECRET)
        thread.join()


@pytest.mark.parametrize(
    "nonsense", [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, wire.MAGIC]
)
def test_strangers_hold_nobody_up(
    door: tuple[wire.Door, list[socket.socket]], nonsense: bytes
) -> None:
    strangers = [socket.create_connection(door[0].address) for _ in range(20)]
    try:
        for stranger in strangers:
            stranger.sendall(nonsense)
        began = time.monotonic()
        with wire.connect(door[0].address, SECRET):
            wait_for(lambda: door[1])
        assert time.monotonic() - began < 0.4
    finally:
        for stranger in strangers:
            stranger.close()


def test_dripping_bytes_does_not_extend_the_deadline(
    door: tuple[wire.Door, list[socket.socket]],
) -> None:
    with socket.create_connection(door[0].address) as stranger:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 5.0:
                stranger.sendall(b"s")
                time.sleep(0.05)
        assert time.monotonic() - began < 2.0


def test_a_flood_of_strangers_pushes_out_the_oldest(
    door: tuple[wire.Door, list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MOST_STRANGERS", 3)
    strangers = [socket.create_connection(door[0].address) for _ in range(10)]
    try:
        strangers[0].settimeout(0.3)
        assert len(strangers[0].recv(100)) == 40
        assert strangers[0].recv(100) == b""
        with wire.connect(door[0].address, SECRET):
            wait_for(lambda: door[1])
    finally:
        for stranger in strangers:
            stranger.close()


def test_connecting_to_nobody_fails_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        began = time.monotonic()
        with pytest.raises(TimeoutError):  # it accepts and says nothing
            wire.connect(address, SECRET, timeout_s=0.2)
        assert time.monotonic() - began < 1.0
    with pytest.raises(ConnectionRefusedError):
        wire.connect(address, SECRET)


def test_only_the_interface_that_is_needed_is_bound(
    door: tuple[wire.Door, list[socket.socket]],
) -> None:
    assert door[0].address[0] == "127.0.0.1"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.text(), PLAIN, max_size=4), max_size=4))
def test_plain_data_arrives_as_it_was_sent(messages: list[dict[str, Any]]) -> None:
    left, right = socket.socketpair()
    with left, right:
        for message in messages:
            left.sendall(wire.encode(message))
        left.close()
        assert [wire.receive(right) for _ in messages] == messages
        assert wire.receive(right) is None


def test_what_is_not_plain_is_explained() -> None:
    with pytest.raises(TypeError, match=r"set is not JSON serializable.*plain data"):
        wire.encode({"a": {1, 2}})


def test_large_messages_are_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = wire.encode({"a": "x" * 2000})
    monkeypatch.setattr(wire, "LARGEST_MESSAGE_BYTES", 1000)
    with pytest.raises(ValueError, match="run directory"):
        wire.encode({"a": "x" * 2000})
    left, right = socket.socketpair()
    with left, right:
        left.sendall(frame)
        assert wire.receive(right) is None


@pytest.mark.parametrize("body", [b"no json", b"[1]", b"\xff\xfe"])
def test_a_frame_that_is_no_message_ends_the_conversation(body: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(len(body).to_bytes(4, "big") + body)
        assert wire.receive(right) is None


def test_a_peer_that_takes_nothing_in_is_given_up() -> None:
    left, right = socket.socketpair()
    connection = wire.Connection(left, send_timeout_s=0.1)
    with right:
        began = time.monotonic()
        while connection.send({"x": "y" * 100_000}):
            assert time.monotonic() - began < 5.0
        assert not connection.send({})
        connection.close()
