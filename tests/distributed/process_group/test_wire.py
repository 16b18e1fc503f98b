from __future__ import annotations

import secrets
import socket
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfold.distributed.process_group import wire

SECRET = b"s" * 32


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


def test_connecting_to_nobody_fails_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        began = time.monotonic()
        with pytest.raises(TimeoutError):  # it accepts and says nothing
            wire.connect(address, SECRET, timeout_s=0.2)
        assert time.monotonic() - began < 1.0
    with pytest.raises(ConnectionRefusedError):
        wire.connect(address, SECRET)


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
