"""A listening socket behind which only those come who know a secret."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from sixfold.world import wire

MOST_STRANGERS = 128
"""Connections that have not yet proved themselves; beyond it the oldest is dropped."""


class Door:
    """A listening socket that lets in whoever knows the secret, and nobody else.

    Each caller has a thread of its own until it has proved itself or is dropped, so strangers who
    say nothing, or nonsense, hold nobody up. The port is chosen by binding and stays bound.

    Attributes:
        address: where it listens.
    """

    def __init__(
        self,
        host: str,
        secret: bytes,
        enter: Callable[[socket.socket], None],
        *,
        handshake_s: float = wire.HANDSHAKE_S,
    ) -> None:
        """Begin to listen.

        Args:
            host: address of the one interface to listen on.
            secret: what callers must know.
            enter: called in the caller's thread with an authenticated, blocking socket, which it
                owns from then on.
            handshake_s: after which a silent caller is dropped.
        """
        self._secret = secret
        self._enter = enter
        self._handshake_s = handshake_s
        self._lock = threading.Lock()
        self._strangers: dict[socket.socket, None] = {}  # oldest first
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._listener = socket.create_server((host, 0), backlog=512)
        self.address: wire.Address = self._listener.getsockname()[:2]
        self._accepter = threading.Thread(target=self._accept, daemon=True, name="sixfold-door")
        self._accepter.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.05)  # out of file descriptors, or a caller that hung up at once
                continue
            thread = threading.Thread(
                target=self._admit, args=(connection,), daemon=True, name="sixfold-caller"
            )
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._strangers[connection] = None
                if len(self._strangers) > MOST_STRANGERS:
                    wire.shut(next(iter(self._strangers)))
                self._threads = [other for other in self._threads if other.is_alive()]
                self._threads.append(thread)
                thread.start()

    def _admit(self, connection: socket.socket) -> None:
        try:
            wire.answer(connection, self._secret, timeout_s=self._handshake_s)
        except OSError:
            connection.close()
            return
        finally:
            with self._lock:
                self._strangers.pop(connection, None)
        if self._closed:
            connection.close()
        else:
            self._enter(connection)

    def close(self) -> None:
        """Stop listening, drop strangers, and wait until every `enter` has returned."""
        with self._lock:
            self._closed = True
            for connection in self._strangers:
                wire.shut(connection)
        wire.shut(self._listener)  # wakes accept()
        self._listener.close()
        self._accepter.join()
        for thread in self._threads:
            thread.join()
