"""Objects between processes of our own, over a socket pair that one inherited from the other.

Pickle is safe here and only here: no one else can hold an end of such a pair. File descriptors
can travel along.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any

MOST_DESCRIPTORS = 4

_LENGTH = struct.Struct("=Q")


def send(pair: socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:
    """Send an object, and duplicates of file descriptors; an `OSError` if nobody is there."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    header = _LENGTH.pack(len(body))
    if descriptors:
        sent = socket.send_fds(pair, [header], list(descriptors))
        header = header[sent:]
    pair.sendall(header + body if len(body) < 1 << 16 else header)
    if len(body) >= 1 << 16:
        pair.sendall(body)


def receive(pair: socket.socket) -> tuple[Any, list[int]] | None:
    """The next object and its descriptors, or None when the other end is closed.

    A message that breaks off counts as the end: its sender has died.
    """
    try:
        first, descriptors, _, _ = socket.recv_fds(pair, _LENGTH.size, MOST_DESCRIPTORS)
    except OSError:
        return None
    header = _rest(pair, first, _LENGTH.size) if first else None
    body = None if header is None else _rest(pair, b"", _LENGTH.unpack(header)[0])
    if body is None:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return pickle.loads(body), descriptors


def _rest(pair: socket.socket, begun: bytes, size: int) -> bytearray | None:
    data = bytearray(size)
    data[: len(begun)] = begun
    view = memoryview(data)
    done = len(begun)
    while done < size:
        try:
            count = pair.recv_into(view[done:])
        except OSError:
            return None
        if count == 0:
            return None
        done += count
    return data
