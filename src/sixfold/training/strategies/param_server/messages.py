"""Messages between workers and servers: a little plain data and a few arrays, in one frame.

    length of the header (4 bytes) | header, JSON | bytes of the arrays, one after the other

The header's ``arrays`` gives dtype and length of each. Connections are authenticated before the
first frame (`sixfold.distributed.process_group.wire`); nothing is ever unpickled, and a frame
larger than the receiver expects ends the conversation before anything is allocated for it.

Why not Arrow Flight: `benchmarks/parameter_wire.py` measures both.
"""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LARGEST_HEADER_BYTES = 16 << 20
"""Plain data is small, but for the table in a snapshot of a run of many epochs."""
DTYPES = ("float32", "float64", "int64")
_LENGTH = struct.Struct("!I")


class BrokenFrameError(ConnectionError):
    """The other side sent something that is no frame of ours, or a larger one than it may."""


def send(connection: socket.socket, header: Mapping[str, Any], arrays: Sequence[Array] = ()) -> int:
    """Send a frame; how many bytes went out. An OSError if the other side is gone.

    The connection is authenticated and blocking, the header plain data, arrays are one-dimensional
    and contiguous, of one of `DTYPES`.
    """
    described = [[str(array.dtype), len(array)] for array in arrays]
    body = json.dumps({**header, "arrays": described}, separators=(",", ":")).encode()
    views: list[Any] = [memoryview(_LENGTH.pack(len(body)) + body)]
    views += [memoryview(array).cast("B") for array in arrays if array.nbytes]  # type: ignore[arg-type]
    total = sum(len(view) for view in views)
    while views:
        sent = connection.sendmsg(views)
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if sent:
            views[0] = views[0][sent:]
    return total


def receive(
    connection: socket.socket, *, most_bytes: int
) -> tuple[dict[str, Any], list[Array], int]:
    """The next frame: header, arrays (`most_bytes` together at most), and how many bytes came.

    An EOFError at the end of the conversation, a `BrokenFrameError` if it is no frame or too large,
    an OSError if the other side is gone.
    """
    (length,) = _LENGTH.unpack(_fill(connection, bytearray(_LENGTH.size)))
    if length > LARGEST_HEADER_BYTES:
        raise BrokenFrameError(f"a header of {length} bytes")
    try:
        header = json.loads(_fill(connection, bytearray(length)))
        described = [(str(dtype), int(count)) for dtype, count in header.pop("arrays")]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BrokenFrameError(f"no header of ours: {error}") from None
    if any(dtype not in DTYPES or count < 0 for dtype, count in described):
        raise BrokenFrameError("an array of an unknown kind")
    size = sum(np.dtype(dtype).itemsize * count for dtype, count in described)
    if size > most_bytes:
        raise BrokenFrameError(f"{size} bytes of arrays where {most_bytes} are the most")
    arrays = []
    for dtype, count in described:
        array = np.empty(count, dtype)
        if count:
            _fill(connection, memoryview(array).cast("B"))  # type: ignore[arg-type]
        arrays.append(array)
    return header, arrays, _LENGTH.size + length + size


def _fill(connection: socket.socket, buffer: Any) -> Any:
    view = memoryview(buffer)
    while view:
        count = connection.recv_into(view, flags=socket.MSG_WAITALL)
        if count == 0:
            raise EOFError
        view = view[count:]
    return buffer
