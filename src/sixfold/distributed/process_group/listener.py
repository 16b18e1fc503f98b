"""A listening socket behind which only those come who know a secret."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from sixfold.distributed.process_group import wire

MOST_STRANGERS = 512  # connections that have not yet proved themselves
MOST_OF_ONE_ADDRESS = 128  # the same from one address, so that one host cannot take all places

UNDISTURBED_S = 2.0
"""For which nobody is dropped to make room: a handshake takes milliseconds, and so none that is
going on can be pushed out by numbers. Who finds no room is refused, and calls again."""


class AuthenticatedListener:
    """A listening socket that lets in whoever knows the secret, and nobody else.

    Each caller has a thread of its own until it has proved itself or is dropped, so strangers who
    say nothing, or nonsense, hold nobody up; where they are too many, the oldest of the address
    that sent the most makes room. The port is chosen by binding and stays bound.
    """

    def __init__(
        self,
        host: str,
        secret: bytes,
        enter: Callable[[socket.socket], None],
        *,
        handshake_s: float = wire.HANDSHAKE_S,
        exhausted: Callable[[RuntimeError], None] | None = None,
    ) -> None:
        """Listen on one interface; who has not proved itself after `handshake_s` is dropped.

        `enter` is called in the caller's thread with the authenticated, blocking socket, now its
        own. `exhausted` is told if a caller had to be turned away for want of a thread.
        """
        self._secret = secret
        self._enter = enter
        self._handshake_s = handshake_s
        self._exhausted = exhausted
        self._lock = threading.Lock()
        # Address and time of arrival, oldest first.
        self._strangers: dict[socket.socket, tuple[str, float]] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._listener = socket.create_server((host, 0), backlog=512)
        self.address: wire.Address = self._listener.getsockname()[:2]  # where it listens
        self._accepter = threading.Thread(target=self._accept, daemon=True, name="sixfold-listener")
        self._accepter.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, caller = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.05)  # out of file descriptors, or a caller that hung up at once
                continue
            try:
                connection = wire.secured(connection, self._secret, is_listener=True)
            except OSError:  # it has hung up
                connection.close()
                continue
            thread = threading.Thread(
                target=self._admit, args=(connection,), daemon=True, name="sixfold-caller"
            )
            with self._lock:
                if self._closed or not self._has_room(caller[0]):
                    connection.close()
                    continue
                self._strangers[connection] = caller[0], time.monotonic()
                self._threads = [other for other in self._threads if other.is_alive()]
                try:
                    thread.start()
                except RuntimeError as error:  # no memory for one more: the caller hears it at once
                    del self._strangers[connection]
                    connection.close()
                    if self._exhausted is not None:
                        self._exhausted(error)
                    continue
                self._threads.append(thread)

    def _has_room(self, host: str) -> bool:
        """Whether one more may come from an address, if need be in the place of another."""
        counts = Counter(address for address, _ in self._strangers.values())
        if counts[host] < MOST_OF_ONE_ADDRESS and counts.total() < MOST_STRANGERS:
            return True
        crowded = host if counts[host] >= MOST_OF_ONE_ADDRESS else counts.most_common(1)[0][0]
        oldest = next(one for one, (host, _) in self._strangers.items() if host == crowded)
        if time.monotonic() - self._strangers[oldest][1] < UNDISTURBED_S:
            return False
        wire.shut(oldest)
        del self._strangers[oldest]
        return True

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
