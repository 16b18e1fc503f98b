"""How a worker reaches a server: as an object of the same process, or over a socket.

Both carry the same four requests, so a worker does not know which it talks to.
"""

import socket
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.distributed.process_group import wire
from sixfold.training.strategies.param_server import messages
from sixfold.training.strategies.param_server.server import (
    Answer,
    LeaseName,
    Pulled,
    Push,
    ShardServer,
    Snapshot,
    Version,
)
from sixfold.training.strategies.param_server.snapshots import ledger_from_plain, ledger_to_plain


class ServerLostError(ConnectionError):
    """The server is gone; another one will take its place."""


class DirectTransport:
    """Brings requests to a server of the same process, and later back its replies.

    The bytes that each tells of are those that a wire would have to carry.
    """

    def __init__(self, server: ShardServer) -> None:
        self._server = server
        self._reply: tuple[dict[str, Any], list[messages.Array]] = ({}, [])

    def send(self, header: Mapping[str, Any], arrays: list[messages.Array]) -> int:
        """Have the request served now; the server may overwrite what it is given."""
        self._reply = serve_request(self._server, header, [array.copy() for array in arrays])
        return sum(array.nbytes for array in arrays)

    def receive(self) -> tuple[dict[str, Any], list[messages.Array], int]:
        """The reply to the last request."""
        return *self._reply, sum(array.nbytes for array in self._reply[1])

    def close(self) -> None:
        """Nothing."""


class SocketTransport:
    """The same to a server behind a socket; a `ServerLostError` if nobody is there.

    `most_bytes` is the size of a reply's arrays at most.
    """

    def __init__(self, address: wire.Address, secret: bytes, *, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        try:
            self._socket: socket.socket = wire.connect(address, secret)
        except OSError as error:
            raise ServerLostError(f"{address[0]}:{address[1]}: {error}") from None

    def send(self, header: Mapping[str, Any], arrays: list[messages.Array]) -> int:
        """Send a request, without waiting for its reply."""
        try:
            return messages.send(self._socket, header, arrays)
        except OSError as error:
            raise ServerLostError(str(error)) from None

    def receive(self) -> tuple[dict[str, Any], list[messages.Array], int]:
        """Wait for the reply to the oldest request."""
        try:
            return messages.receive(self._socket, most_bytes=self._most_bytes)
        except (OSError, EOFError) as error:
            raise ServerLostError(str(error)) from None

    def close(self) -> None:
        """End the conversation."""
        self._socket.close()


class Access:
    """One server as a worker sees it.

    A request is sent first and its answer fetched later, so that a worker can have all servers work
    for it at the same time. `bytes_moved` counts what was sent and received.
    """

    def __init__(self, transport: DirectTransport | SocketTransport) -> None:
        self._transport, self.bytes_moved = transport, 0
        self.close = transport.close

    def open(self, lease: LeaseName, attempt: int) -> None:
        """Ask for `ShardServer.open`; `answer` gives its answer and None."""
        self._send({"op": "open", "lease": list(lease), "attempt": attempt})

    def pull(self) -> None:
        """Ask for `ShardServer.pull`; `answer` gives None and the slice."""
        self._send({"op": "pull"})

    def push(self, push: Push) -> None:
        """Ask for `ShardServer.push` and a pull after it; `answer` gives both."""
        header = {
            "op": "push",
            "lease": list(push.lease),
            "sequence": push.sequence,
            "attempt": push.attempt,
            "base": list(push.base),
            "lr": push.lr,
        }
        self._send(header, push.gradient, push.before, push.after, push.moved)

    def answer(self) -> tuple[Answer | None, Pulled | None]:
        """The answer to the last request; a `ServerLostError` if the server is gone."""
        header, arrays = self._receive()
        answer = header.get("answer")
        pulled = Pulled(version=Version(*header["version"]), **_named(arrays)) if arrays else None
        return (None if answer is None else answer_from_plain(answer)), pulled

    def snapshot(self) -> Snapshot:
        """Everything the server knows."""
        self._send({"op": "snapshot"})
        header, arrays = self._receive()
        slots = [torch.from_numpy(array) for array in arrays[3:]]
        return Snapshot(
            **_named(arrays[:3]),
            slots=dict(zip(header["slots"], slots, strict=True)),
            updates=int(header["updates"]),
            ledger=ledger_from_plain(header["ledger"]),
        )

    def _send(self, header: Mapping[str, Any], *tensors: Tensor) -> None:
        self.bytes_moved += self._transport.send(header, [t.numpy() for t in tensors])

    def _receive(self) -> tuple[dict[str, Any], list[messages.Array]]:
        header, arrays, size = self._transport.receive()
        self.bytes_moved += size
        return header, arrays


def answer_to_plain(answer: Answer) -> list[Any]:
    """An answer as plain data."""
    return [answer.outcome, answer.applied, list(answer.version), answer.staleness]


def answer_from_plain(data: Any) -> Answer:
    """What `answer_to_plain` was given."""
    outcome, applied, version, staleness = data
    return Answer(outcome=outcome, applied=applied, version=Version(*version), staleness=staleness)


def serve_request(
    server: ShardServer, header: Mapping[str, Any], arrays: list[messages.Array]
) -> tuple[dict[str, Any], list[messages.Array]]:
    """The server's reply to one request, of which the caller runs one at a time.

    A `BrokenFrameError` if it is no request of ours.
    """
    try:
        if header["op"] == "open":
            answer = server.open(LeaseName(*header["lease"]), int(header["attempt"]))
            return {"answer": answer_to_plain(answer)}, []
        if header["op"] == "pull":
            return _pulled(server.pull())
        if header["op"] == "push":
            answer = server.push(_push(header, arrays))
            reply, slices = _pulled(server.pull())
            return reply | {"answer": answer_to_plain(answer)}, slices
        if header["op"] == "snapshot":
            kept = server.snapshot()
            tensors = [kept.weights, kept.buffers, kept.counters, *kept.slots.values()]
            reply = {
                "slots": list(kept.slots),
                "updates": kept.updates,
                "ledger": ledger_to_plain(kept.ledger),
            }
            return reply, [tensor.numpy() for tensor in tensors]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise messages.BrokenFrameError(f"no request of ours: {error}") from None
    raise messages.BrokenFrameError(f"no request of ours: {header['op']!r}")


def _push(header: Mapping[str, Any], arrays: list[messages.Array]) -> Push:
    gradient, before, after, moved = (torch.from_numpy(array) for array in arrays)
    return Push(
        lease=LeaseName(*header["lease"]),
        sequence=int(header["sequence"]),
        attempt=int(header["attempt"]),
        base=Version(*header["base"]),
        lr=float(header["lr"]),
        gradient=gradient,
        before=before,
        after=after,
        moved=moved,
    )


def _pulled(pulled: Pulled) -> tuple[dict[str, Any], list[messages.Array]]:
    slices = [pulled.weights.numpy(), pulled.buffers.numpy(), pulled.counters.numpy()]
    return {"version": list(pulled.version)}, slices


def _named(arrays: list[messages.Array]) -> dict[str, Any]:
    weights, buffers, counters = (torch.from_numpy(np.asarray(array)) for array in arrays)
    return {"weights": weights, "buffers": buffers, "counters": counters}
