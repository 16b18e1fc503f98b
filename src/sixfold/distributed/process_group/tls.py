"""TLS 1.3 below the handshake of `wire`: who knows no secret of the run, reads nothing.

Each side presents the run's own certificate and accepts no other (`certificate`); there is no
authority, and names do not count. The proof of the secret follows inside, as without TLS.
"""

from __future__ import annotations

import functools
import os
import select
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sixfold.distributed.process_group.certificate import certificate_of


class CertificateError(OSError):
    """The other side speaks no TLS, or has another certificate."""


@functools.lru_cache(maxsize=16)
def _context(secret: bytes, is_server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.sslsocket_class = TlsSocket
    if is_server:
        context.num_tickets = 0  # nobody comes back to a conversation
    found = certificate_of(secret)
    context.load_verify_locations(cadata=found.der)
    # Python loads a key from files only.
    with tempfile.TemporaryDirectory(prefix="sixfold-") as folder:
        both = Path(folder, "pair.pem")
        with open(os.open(both, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:  # noqa: PTH123
            file.write(found.key_pem + found.certificate_pem)
        context.load_cert_chain(both)
    return context


def wrap(connection: socket.socket, secret: bytes, *, is_server: bool) -> TlsSocket:
    """Take over a connected socket, which has said nothing yet; `do_handshake` is to follow."""
    patience = connection.gettimeout()
    made = _context(secret, is_server).wrap_socket(
        connection, server_side=is_server, do_handshake_on_connect=False
    )
    assert isinstance(made, TlsSocket)
    made.settimeout(patience)
    return made


class TlsSocket(ssl.SSLSocket):
    """A socket that encrypts, of which one thread may read while others write.

    OpenSSL allows one call at a time, so a lock is held during each, and none of them blocks: who
    waits, waits without it, as long as `settimeout` says. What cannot be done at once on a socket
    that does not block is a `BlockingIOError`, as on any other.
    """

    _patience_s: float | None = None
    send_patience_s: float | None = None  # for the other side to take something in, if limited

    @functools.cached_property
    def _lock(self) -> Any:
        return threading.Lock()

    def settimeout(self, value: float | None) -> None:
        """How long a call waits: None for ever, 0 not at all."""
        self._patience_s = value
        socket.socket.settimeout(self, 0.0)

    def setblocking(self, flag: bool) -> None:
        """Wait for ever, or not at all."""
        self.settimeout(None if flag else 0.0)

    def gettimeout(self) -> float | None:
        """As `settimeout` was told."""
        return self._patience_s

    def do_handshake(self, block: bool = False) -> None:  # noqa: ARG002 - of SSLSocket
        """Prove to have the run's certificate, and see that the other side has."""
        try:
            if getattr(self, "_sslobj", None) is None:
                raise ConnectionResetError("it hung up")
            self._run(ssl.SSLSocket.do_handshake, self._patience_s, self)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise ConnectionResetError("it hung up") from error
        except ssl.SSLError as error:
            raise CertificateError(
                f"it does not have the certificate of this run ({error.reason or error})"
            ) from error

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ARG002
        """Write some of the bytes, and return how many."""
        if not len(data):
            return 0
        patience_s = self._patience_s
        if self.send_patience_s is not None and patience_s is None:
            patience_s = self.send_patience_s
        sent: int = self._run(ssl.SSLSocket.send, patience_s, self, data)
        return sent

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:  # noqa: ARG002
        """Read some bytes; none at the end."""
        found: bytes = self._run(ssl.SSLSocket.recv, self._patience_s, self, buflen)
        return found

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:  # noqa: ARG002
        """Read some bytes into memory; 0 at the end."""
        found: int = self._run(ssl.SSLSocket.recv_into, self._patience_s, self, buffer, nbytes)
        return found

    def sendmsg(self, buffers: Iterable[Any], *_: Any) -> int:  # type: ignore[override]
        """Write as much as can be at once."""
        return sum(self._each(buffers, self.send))

    def recvmsg_into(self, buffers: Iterable[Any], *_: Any) -> Any:  # type: ignore[override]
        """Read as much as there is, up to what the buffers hold: (bytes, [], 0, None)."""
        return sum(self._each(buffers, self.recv_into)), [], 0, None

    def shutdown(self, how: int) -> None:
        """End both directions, without a word; never go on in plain text."""
        socket.socket.shutdown(self, how)

    def _each(self, buffers: Iterable[Any], move: Callable[[Any], int]) -> Iterable[int]:
        """How many bytes each call has moved, until one cannot; raises if the first cannot."""
        is_first = True
        for buffer in buffers:
            rest = memoryview(buffer).cast("B")
            while len(rest):
                try:
                    count = move(rest)
                except BlockingIOError:
                    if is_first:
                        raise
                    return
                is_first = False
                if not count:
                    return
                yield count
                rest = rest[count:]

    def _run(self, call: Callable[..., Any], patience_s: float | None, *given: Any) -> Any:
        deadline = None if patience_s is None else time.monotonic() + patience_s
        while True:
            try:
                with self._lock:
                    return call(*given)
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            if patience_s == 0:
                raise BlockingIOError
            poll = select.poll()
            poll.register(self.fileno(), events)
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise TimeoutError("timed out")
            poll.poll(None if left_s is None else 1000 * left_s)
