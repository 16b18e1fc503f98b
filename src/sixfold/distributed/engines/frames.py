"""Objects between processes of our own, over a socket pair that one inherited from the other.

Pickle is safe here and only here: no one else can hold an end of such a pair.
"""

import os
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any

from sixfold.distributed.process_group import wire

MOST_DESCRIPTORS = 4

_LENGTH = struct.Struct("=Q")


def send(pair: socket.socket, message: Any, descriptors: Sequence[int] = ()) -> None:
    """Send an object, and duplicates of file descriptors; an `OSError` if nobody is there."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    header = _LENGTH.pack(len(body))
    if descriptors:
        header = header[socket.send_fds(pair, [header], list(descriptors)) :]
    if len(body) < 1 << 16:
        header, body = header + body, b""
    pair.sendall(header)
    pair.sendall(body)


def receive(pair: socket.socket) -> tuple[Any, list[int]] | None:
    """The next object and its descriptors, or None when the other end is closed.

    A message that breaks off counts as the end: its sender has died.
    """
    descriptors: list[int] = []
    try:
        first, descriptors, _, _ = socket.recv_fds(pair, _LENGTH.size, MOST_DESCRIPTORS)
        header = bytearray(first.ljust(_LENGTH.size))
        wire.fill(pair, memoryview(header)[len(first) :])
        body = bytearray(_LENGTH.unpack(header)[0])
        wire.fill(pair, memoryview(body))
    except (OSError, EOFError):
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return pickle.loads(body), descriptors
