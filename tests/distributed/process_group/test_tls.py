"""Connections of a run that encrypts: what is read of them, and who is let in."""

from __future__ import annotations

import contextlib
import queue
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tests.distributed.process_group.conftest import ThreadGroup

from sixfold.distributed.collectives import tree_all_reduce
from sixfold.distributed.logical_shards import Node
from sixfold.distributed.process_group import Communicator, wire
from sixfold.distributed.process_group.certificate import public_key, signed
from sixfold.distributed.process_group.listener import AuthenticatedListener
from sixfold.distributed.process_group.mesh import Mesh
from sixfold.distributed.process_group.rendezvous import Rendezvous
from sixfold.distributed.process_group.tls import TlsSocket

SECRET = wire.new_secret(tls=True)


@contextmanager
def listening(secret: bytes) -> Iterator[tuple[wire.Address, queue.SimpleQueue[socket.socket]]]:
    """The address of a listener, and those who came in."""
    came: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
    listener = AuthenticatedListener("127.0.0.1", secret, came.put, handshake_s=2.0)
    with contextlib.closing(listener):
        yield listener.address, came
    while not came.empty():
        came.get().close()


@contextmanager
def pair(secret: bytes) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    with (
        listening(secret) as (address, came),
        wire.connect(address, secret) as caller,
        came.get(timeout=5.0) as listener,
    ):
        yield caller, listener


class Sniffer:
    """Hands on what passes between a caller and a listener, and keeps it."""

    def __init__(self, target: wire.Address) -> None:
        self.seen = bytearray()
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: wire.Address = self._server.getsockname()[:2]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        caller, _ = self._server.accept()
        target = socket.create_connection(self._target)
        back = threading.Thread(target=self._hand_on, args=(target, caller))
        back.start()
        self._hand_on(caller, target)
        back.join()
        caller.close()
        target.close()

    def _hand_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.seen += data
                sink.sendall(data)
        wire.shut(sink)

    def close(self) -> None:
        self._threads[0].join()
        self._server.close()


@pytest.mark.parametrize("tls", [True, False])
def test_who_listens_in_reads_nothing(tls: bool) -> None:
    secret, text = wire.new_secret(tls=tls), b"these are weights " * 100
    with (
        listening(secret) as (address, came),
        contextlib.closing(Sniffer(address)) as sniffer,
        wire.connect(sniffer.address, secret) as caller,
        came.get(timeout=5.0) as listener,
    ):
        caller.sendall(text)
        got = bytearray(len(text))
        wire.fill(listener, memoryview(got))
        assert got == text
        seen = bytes(sniffer.seen)
        caller.close()
        listener.close()
    assert (text[:18] in seen) is not tls
    assert (wire.MAGIC in seen) is not tls


def test_who_speaks_in_plain_text_is_refused() -> None:
    plain = SECRET[len(b"tls:") :]
    with listening(SECRET) as (address, came):
        with socket.create_connection(address) as stranger:
            stranger.sendall(wire.MAGIC + secrets.token_bytes(64))
            stranger.settimeout(5.0)
            with contextlib.suppress(ConnectionResetError):
                assert wire.MAGIC not in stranger.recv(1000)
        assert came.empty()
    with listening(plain) as (address, came):
        with pytest.raises(wire.HandshakeError, match="does not have the certificate of this run"):
            wire.connect(address, SECRET)
        assert came.empty()


def test_another_certificate_is_refused_by_both_sides() -> None:
    with listening(SECRET) as (address, came):
        with pytest.raises(wire.HandshakeError, match=r"certificate of this run .*VERIFY_FAILED"):
            wire.connect(address, wire.new_secret(tls=True))
        assert came.empty()


def test_a_mesh_moves_the_same_bytes() -> None:
    with pair(SECRET) as sockets:
        assert all(isinstance(each, TlsSocket) for each in sockets)
        meshes = [Mesh({1 - rank: end}, spin=False) for rank, end in enumerate(sockets)]
        sent = [np.random.default_rng(rank).bytes(5_000_000) for rank in range(2)]
        got = [np.zeros(5_000_000, np.uint8) for _ in range(2)]

        def exchange(rank: int) -> None:
            mine = np.frombuffer(sent[rank], np.uint8)
            for _ in range(3):
                meshes[rank].exchange({1 - rank: mine}, {1 - rank: got[rank]})

        threads = [threading.Thread(target=exchange, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got[0].tobytes() == sent[1]
    assert got[1].tobytes() == sent[0]


def test_one_thread_reads_while_others_write() -> None:
    with pair(SECRET) as (left, right):
        connections = wire.Connection(left), wire.Connection(right)
        count, texts = 300, ["a", "b" * 3000]

        def write(connection: wire.Connection, text: str) -> None:
            for _ in range(count):
                assert connection.send({"text": text})

        writers = [
            threading.Thread(target=write, args=(connection, text))
            for connection in connections
            for text in texts
        ]
        heard: list[list[Any]] = [[], []]

        def read(side: int) -> None:
            for _ in range(count * len(texts)):
                heard[side].append(connections[side].receive())

        readers = [threading.Thread(target=read, args=(side,)) for side in range(2)]
        for thread in (*writers, *readers):
            thread.start()
        for thread in (*writers, *readers):
            thread.join()
        for messages in heard:
            assert sorted(m["text"] for m in messages) == sorted(texts * count)


def total(comm: Communicator) -> list[float]:
    own = np.full(30_000, comm.rank + 0.1, np.float32)
    return [float(tree_all_reduce(comm, [(Node(0, comm.rank), own)], comm.size)[7])]


def test_a_group_meets_and_works() -> None:
    results = []
    for tls in (True, False):
        group = ThreadGroup(Rendezvous(4, tls=tls))
        with contextlib.closing(group.rendezvous):
            run: Callable[..., Any] = group.start
            group.rendezvous.admit(0)
            for rank in range(4):
                run(total, rank)
            while not group.rendezvous.now.over:
                group.rendezvous.poll(0.1)
            results.append(group.rendezvous.now.results)
    assert results[0] == results[1]


def test_keys_are_those_of_rfc_8032() -> None:
    """The first test of its section 7.1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert public_key(seed).hex() == public
    assert signed(b"", seed).hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
