from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.listener import AuthenticatedListener

SECRET = b"s" * 32

Entrance = tuple[AuthenticatedListener, list[socket.socket]]


@pytest.fixture
def door() -> Iterator[Entrance]:
    entered: list[socket.socket] = []
    door = AuthenticatedListener("127.0.0.1", SECRET, entered.append, handshake_s=0.5)
    yield door, entered
    door.close()
    for connection in entered:
        connection.close()


def wait_for(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_who_knows_the_secret_enters(door: Entrance) -> None:
    with wire.connect(door[0].address, SECRET) as connection:
        wait_for(lambda: door[1])
        connection.sendall(wire.encode({"a": [1, 2.5, None, "ü"]}))
        assert wire.receive(door[1][0]) == {"a": [1, 2.5, None, "ü"]}


def test_who_does_not_is_refused(door: Entrance) -> None:
    with pytest.raises(ConnectionError):
        wire.connect(door[0].address, b"x" * 32)
    assert not door[1]


def test_a_listener_cannot_be_fed_its_own_proof(
    door: Entrance,
) -> None:
    """A man in the middle without the secret, who plays two sessions against each other."""
    with socket.create_connection(door[0].address) as first:
        hello = first.recv(40)
        nonce = hello[len(wire.MAGIC) :]
        first.sendall(wire.MAGIC + nonce + secrets.token_bytes(wire.DIGEST_BYTES))
        assert first.recv(100) == b""
    assert not door[1]


@pytest.mark.parametrize(
    "nonsense", [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, wire.MAGIC]
)
def test_strangers_hold_nobody_up(door: Entrance, nonsense: bytes) -> None:
    foreign_files = [socket.create_connection(door[0].address) for _ in range(20)]
    try:
        for stranger in foreign_files:
            stranger.sendall(nonsense)
        began = time.monotonic()
        with wire.connect(door[0].address, SECRET):
            wait_for(lambda: door[1])
        assert time.monotonic() - began < 0.4
    finally:
        for stranger in foreign_files:
            stranger.close()


def test_dripping_bytes_does_not_extend_the_deadline(
    door: Entrance,
) -> None:
    with socket.create_connection(door[0].address) as stranger:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 5.0:
                stranger.sendall(b"s")
                time.sleep(0.05)
        assert time.monotonic() - began < 2.0


@pytest.fixture
def crowd(door: Entrance, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Strangers who say nothing, as many as there is room for from one address."""
    monkeypatch.setattr("sixfold.distributed.process_group.listener.MOST_OF_ONE_ADDRESS", 4)
    foreign_files = [socket.create_connection(door[0].address) for _ in range(4)]
    for stranger in foreign_files:
        stranger.settimeout(2.0)
        assert len(stranger.recv(100)) == 40
    yield foreign_files
    for stranger in foreign_files:
        stranger.close()


def test_a_handshake_that_is_going_on_is_not_pushed_out_by_numbers(
    door: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.process_group.listener.MOST_OF_ONE_ADDRESS", 4)
    with socket.create_connection(door[0].address) as slow:
        theirs = slow.recv(100)[len(wire.MAGIC) :]
        foreign_files = [socket.create_connection(door[0].address) for _ in range(20)]
        ours = secrets.token_bytes(wire.NONCE_BYTES)
        slow.sendall(wire.MAGIC + ours + wire._proof(SECRET, b"caller", theirs, ours))
        wait_for(lambda: door[1])
        for stranger in foreign_files:
            stranger.close()


@pytest.mark.usefixtures("crowd")
def test_who_finds_no_room_calls_again_until_silent_strangers_have_gone(door: Entrance) -> None:
    began = time.monotonic()
    with wire.connect(door[0].address, SECRET):  # they are dropped after `handshake_s`, 0.5 s
        wait_for(lambda: door[1])
    assert time.monotonic() - began < 4.0


def test_a_stranger_who_is_slow_makes_room(
    door: Entrance, crowd: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.process_group.listener.UNDISTURBED_S", 0.0)
    monkeypatch.setattr(door[0], "_handshake_s", 60.0)
    with wire.connect(door[0].address, SECRET):
        wait_for(lambda: door[1])
    assert crowd[0].recv(100) == b""  # the oldest


def test_strangers_of_one_address_take_no_room_from_others(
    door: Entrance, crowd: list[socket.socket]
) -> None:
    other = socket.create_connection(door[0].address, source_address=("127.0.0.2", 0))
    with other:
        assert len(other.recv(100)) == 40
    refused = socket.create_connection(door[0].address)
    with refused, contextlib.suppress(ConnectionError):
        assert refused.recv(100) == b""
    assert len(crowd) == 4


def test_of_too_many_addresses_the_one_that_sent_most_makes_room(
    door: Entrance, crowd: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfold.distributed.process_group.listener.MOST_STRANGERS", 5)
    monkeypatch.setattr("sixfold.distributed.process_group.listener.UNDISTURBED_S", 0.0)
    others = [
        socket.create_connection(door[0].address, source_address=("127.0.0.2", 0)) for _ in range(2)
    ]
    for other in others:
        other.settimeout(0.3)
        assert len(other.recv(100)) == 40
        other.close()
    assert crowd[0].recv(100) == b""


def test_only_the_interface_that_is_needed_is_bound(
    door: Entrance,
) -> None:
    assert door[0].address[0] == "127.0.0.1"


def test_where_no_thread_can_be_started_the_caller_hears_it_and_others_enter_later(
    door: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_more_threads)
        with pytest.raises(OSError, match=r"hung up|closed|reset|ended|refused"):
            wire.connect(door[0].address, SECRET)
    with wire.connect(door[0].address, SECRET):
        wait_for(lambda: door[1])


def test_who_listens_is_told_that_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[RuntimeError] = []
    listener = AuthenticatedListener("127.0.0.1", SECRET, lambda _: None, exhausted=told.append)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _no_more_threads)
            with pytest.raises(OSError, match=r"hung up|closed|reset|ended|refused"):
                wire.connect(listener.address, SECRET)
        assert {str(error) for error in told} == {"can't start new thread"}
    finally:
        listener.close()


def _no_more_threads(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
