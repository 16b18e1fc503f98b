"""The wire between launcher and ranks, and among ranks: who may speak, and in what form.

Every connection begins with a handshake in which each side proves that it knows a shared secret
without sending it (HMAC-SHA256 over two fresh nonces, in the manner of CRAM and SCRAM):

    listener  -> caller    MAGIC, listener's nonce
    caller    -> listener  MAGIC, caller's nonce, HMAC(secret, "caller" + both nonces)
    listener  -> caller    HMAC(secret, "listener" + both nonces)

All of it has fixed length and one deadline, so a stranger can make neither side allocate, parse
or wait for long. After it, control messages are JSON with a length in front; nothing from a
socket is ever unpickled. The secret keeps strangers from speaking; one that asks for TLS (see
`new_secret`) keeps them from listening too: all of it then goes through `tls`.
"""

import contextlib
import hmac
import json
import secrets
import socket
import struct
import threading
import time
from typing import Any

from sixfold.distributed.process_group.tls import CertificateError, TlsSocket, wrap

Address = tuple[str, int]  # IPv4 host and port

HANDSHAKE_S = 10.0
"""A handshake takes three messages of under 100 bytes: milliseconds, even between continents."""

CALL_AGAIN_S = 0.1  # until a caller that was refused before a word tries again

LARGEST_MESSAGE_BYTES = 16 << 20
"""Control messages are small facts; what is larger belongs into the run directory."""

MAGIC = b"sixfold1"
NONCE_BYTES = 32
DIGEST_BYTES = 32
_LENGTH = struct.Struct("!I")
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}


class HandshakeError(ConnectionError):
    """The other side does not know the secret, or does not speak our language."""


_SECRET_BYTES = 32
_TLS = b"tls:"


def new_secret(*, tls: bool = False) -> bytes:
    """A secret for a run, which says whether its connections are encrypted."""
    return _TLS * tls + secrets.token_bytes(_SECRET_BYTES)


def asks_for_tls(secret: bytes) -> bool:
    """Whether connections that it opens are encrypted."""
    return len(secret) == len(_TLS) + _SECRET_BYTES and secret.startswith(_TLS)


def derive(secret: bytes, purpose: str) -> bytes:
    """A secret for one purpose, from which neither the first nor another one follows."""
    return _TLS * asks_for_tls(secret) + hmac.digest(secret, purpose.encode(), "sha256")


def connect(address: Address, secret: bytes, *, timeout_s: float = HANDSHAKE_S) -> socket.socket:
    """Call an `AuthenticatedListener` and pass its handshake; call again while it has no room.

    Returns a blocking socket. A `HandshakeError` says that either side refuses the other, another
    `OSError` that there is nobody, or that the time for all of it is over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        connection = socket.create_connection(
            address, timeout=max(deadline - time.monotonic(), 1e-3)
        )
        try:
            connection = secured(connection, secret)
            if isinstance(connection, TlsSocket):
                connection.do_handshake()
            hello = _receive_exactly(connection, len(MAGIC) + NONCE_BYTES, deadline)
            break
        except CertificateError as error:
            connection.close()
            raise HandshakeError(f"{address[0]}:{address[1]}: {error}") from error
        except ConnectionError:  # before a word: too many callers wait
            connection.close()
            if time.monotonic() + CALL_AGAIN_S > deadline:
                raise
            time.sleep(CALL_AGAIN_S)
        except BaseException:
            connection.close()
            raise
    try:
        _tune(connection)
        if hello[: len(MAGIC)] != MAGIC:
            raise HandshakeError(f"{address[0]}:{address[1]} is no Sixfold launcher or rank")
        theirs, ours = hello[len(MAGIC) :], secrets.token_bytes(NONCE_BYTES)
        connection.sendall(MAGIC + ours + _proof(secret, b"caller", theirs, ours))
        proof = _receive_exactly(connection, DIGEST_BYTES, deadline)
        if not hmac.compare_digest(proof, _proof(secret, b"listener", theirs, ours)):
            raise HandshakeError(f"{address[0]}:{address[1]} does not know the secret of this run")
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return connection


def secured(
    connection: socket.socket, secret: bytes, *, is_listener: bool = False
) -> socket.socket:
    """A socket that encrypts in place of a fresh one, where the secret asks for it."""
    return wrap(connection, secret, is_server=is_listener) if asks_for_tls(secret) else connection


def answer(connection: socket.socket, secret: bytes, *, timeout_s: float = HANDSHAKE_S) -> None:
    """The listener's half of the handshake; an `OSError` if it fails."""
    _tune(connection)
    deadline = time.monotonic() + timeout_s
    connection.settimeout(timeout_s)
    if isinstance(connection, TlsSocket):
        connection.do_handshake()
    ours = secrets.token_bytes(NONCE_BYTES)
    connection.sendall(MAGIC + ours)
    reply = _receive_exactly(connection, len(MAGIC) + NONCE_BYTES + DIGEST_BYTES, deadline)
    magic, theirs = reply[: len(MAGIC)], reply[len(MAGIC) : -DIGEST_BYTES]
    expected = _proof(secret, b"caller", ours, theirs)
    if magic != MAGIC or not hmac.compare_digest(reply[-DIGEST_BYTES:], expected):
        raise HandshakeError("a stranger called")
    connection.sendall(_proof(secret, b"listener", ours, theirs))
    connection.settimeout(None)


def _proof(secret: bytes, role: bytes, listener_nonce: bytes, caller_nonce: bytes) -> bytes:
    """The role keeps a side from being fed its own proof."""
    return hmac.digest(secret, role + listener_nonce + caller_nonce, "sha256")


def _tune(connection: socket.socket) -> None:
    """Send at once, and notice a peer that vanished without a word (after about 90 s)."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def fill(connection: socket.socket, view: memoryview, deadline: float | None = None) -> None:
    """Fill memory; the deadline holds for all of it, so dripping bytes does not extend it."""
    while len(view):
        if deadline is not None:
            connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        received = connection.recv_into(view)
        if received == 0:
            raise HandshakeError("refused") if deadline is not None else EOFError
        view = view[received:]


def _receive_exactly(connection: socket.socket, count: int, deadline: float | None) -> bytes:
    data = bytearray(count)
    fill(connection, memoryview(data), deadline)
    return bytes(data)


def encode(message: Any) -> bytes:
    """Plain data as a frame; TypeError: it is none, ValueError: it is too large."""
    try:
        body = json.dumps(message, separators=(",", ":")).encode()
    except TypeError as error:
        raise TypeError(
            f"{error}: a rank can hand over only plain data (None, bool, int, float, str, list, "
            "dict); write anything else to the run directory"
        ) from None
    if len(body) > LARGEST_MESSAGE_BYTES:
        raise ValueError(
            f"a message of {len(body)} bytes is larger than {LARGEST_MESSAGE_BYTES}: write "
            "large results to the run directory"
        )
    return _LENGTH.pack(len(body)) + body


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """The next control message of an authenticated, blocking connection; None at its end."""
    try:
        (length,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size, None))
        if length > LARGEST_MESSAGE_BYTES:
            return None
        message = json.loads(_receive_exactly(connection, length, None))
    except (OSError, EOFError, ValueError):  # ValueError: no JSON, so not one of ours
        return None
    return message if isinstance(message, dict) else None


def shut(connection: socket.socket) -> None:
    """End both directions; whoever is blocked on the socket wakes up."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Connection:
    """An authenticated socket for control messages: one thread receives, any thread may send."""

    def __init__(self, sock: socket.socket, *, send_timeout_s: float = 10.0) -> None:
        """Take over a blocking socket; a peer that takes nothing in for so long is given up."""
        self._socket = sock
        self._lock = threading.Lock()
        timeval = struct.pack("@ll", int(send_timeout_s), int(send_timeout_s % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        if isinstance(sock, TlsSocket):
            sock.send_patience_s = send_timeout_s

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def local_host(self) -> str:
        """Address of the interface by which the other side is reached."""
        return str(self._socket.getsockname()[0])

    def is_local(self) -> bool:
        """Whether the other side is on this host."""
        try:
            return bool(self._socket.getpeername()[0] == self._socket.getsockname()[0])
        except OSError:
            return False

    def send(self, message: Any) -> bool:
        """Send plain data; False if the other side is gone."""
        frame = encode(message)
        with self._lock:
            try:
                self._socket.sendall(frame)
            except OSError:
                shut(self._socket)  # half a frame may be out: nothing may follow it
                return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """The next message, or None at the end. One thread only."""
        return receive(self._socket)

    def shut(self) -> None:
        """End the conversation; the receiving thread wakes up and gets None."""
        shut(self._socket)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
