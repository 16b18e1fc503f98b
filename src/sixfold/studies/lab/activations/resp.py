"""As much of Redis's protocol (RESP 2) as keeping arrays needs: AUTH, PING, SET, GET, DEL.

https://redis.io/docs/latest/develop/reference/protocol-spec/: a command is an array of byte
strings; a reply begins with + (done), - (error), : (number), $ (bytes, length before them).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType

from sixfold.core.errors import RunError

TIMEOUT_S = 30.0
"""For any one reply; a value of 100 MB takes 0.1 s on a loopback interface."""


@dataclass(frozen=True)
class Address:
    """Where a Redis server is, and what it wants to hear."""

    host: str  # by which workers reach it
    port: int
    password: str

    def __repr__(self) -> str:
        """Without the password."""
        return f"Address({self.host}:{self.port})"


class Redis:
    """A connection to a Redis server; use it in a `with`.

    Raises:
        RunError: if the server cannot be reached or does not accept the password.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        try:
            self._socket = socket.create_connection((address.host, address.port), TIMEOUT_S)
        except OSError as error:
            raise RunError(f"Redis at {address.host}:{address.port}: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        try:
            self.command(b"AUTH", address.password.encode())
        except BaseException:
            self.close()
            raise

    def ping(self) -> None:
        """Return if the server answers."""
        self.command(b"PING")

    def set(self, key: str, value: bytes) -> None:
        """Keep a value."""
        self.command(b"SET", key.encode(), value)

    def get(self, key: str) -> bytes:
        """A value that was kept.

        Raises:
            RunError: if there is none.
        """
        value = self.command(b"GET", key.encode())
        if not isinstance(value, bytes):
            raise RunError(f"Redis at {self._address.host}:{self._address.port} has no {key!r}")
        return value

    def delete(self, key: str) -> None:
        """Forget a value."""
        self.command(b"DEL", key.encode())

    def command(self, *words: bytes) -> bytes | int | str | None:
        """Send a command and return its reply.

        Raises:
            RunError: if it is an error, or the connection is lost.
        """
        head = b"*%d\r\n" % len(words)
        try:
            for word in words[:-1]:
                head += b"$%d\r\n%b\r\n" % (len(word), word)
            self._socket.sendall(head + b"$%d\r\n" % len(words[-1]))
            self._socket.sendall(words[-1])  # may be large: not copied
            self._socket.sendall(b"\r\n")
            return self._reply()
        except OSError as error:
            raise RunError(f"Redis: connection lost ({error})") from error

    def _reply(self) -> bytes | int | str | None:
        line = self._file.readline()
        kind, rest = line[:1], line[1:].rstrip(b"\r\n")
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            if length < 0:
                return None
            value = self._file.read(length + 2)
            if len(value) == length + 2:
                return value[:-2]
            raise RunError("Redis: connection lost in the middle of a value")
        if kind == b"-":
            raise RunError(f"Redis: {rest.decode(errors='replace')}")
        raise RunError("Redis: connection lost" if not line else f"Redis: unknown reply {line!r}")

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Redis:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
