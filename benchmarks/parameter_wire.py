"""The wire of the parameter server beside Arrow Flight: one push and the pull that answers it.

A server in a process of its own takes a gradient, adds it to its weights, and sends the weights
back, over sockets of our own (`sixfold.training.strategies.param_server.messages`) and over Arrow
Flight's DoExchange and DoPut + DoGet. All three authenticate the connection, none encrypts. They
take turns.

python benchmarks/parameter_wire.py --repeats 5
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

from sixfold.distributed.process_group import wire
from sixfold.distributed.process_group.listener import AuthenticatedListener
from sixfold.training.strategies.param_server import messages

SECRET = b"s" * 32
SIZES = {"4 KB": 1_024, "337 KB (slide)": 84_362, "4 MB": 1_000_000, "40 MB": 10_000_000}
Round = Callable[[np.ndarray], np.ndarray]


def _own_server(ready: Any, count: int) -> None:
    weights = np.zeros(count, np.float32)

    def talk(connection: Any) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                _, arrays, _ = messages.receive(connection, most_bytes=weights.nbytes)
                np.add(weights, arrays[0], out=weights)
                messages.send(connection, {"clock": 1}, [weights])

    door = AuthenticatedListener("127.0.0.1", SECRET, talk)
    ready.send(door.address)
    time.sleep(3600)


class _Token(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    def start_call(self, _info: Any, headers: Any) -> None:
        if headers.get("authorization") != [SECRET.hex()]:
            raise flight.FlightUnauthenticatedError("no")


class _FlightServer(flight.FlightServerBase):  # type: ignore[misc]
    def __init__(self, count: int) -> None:
        super().__init__("grpc://127.0.0.1:0", middleware={"token": _Token()})
        self.weights = np.zeros(count, np.float32)

    def _batch(self) -> Any:
        return pa.record_batch([pa.array(self.weights)], names=["w"])

    def do_exchange(self, _context: Any, _descriptor: Any, reader: Any, writer: Any) -> None:
        begun = False
        for chunk in reader:
            gradient = chunk.data.column(0).to_numpy()
            np.add(self.weights, gradient, out=self.weights)
            batch = self._batch()
            if not begun:
                writer.begin(batch.schema)
                begun = True
            writer.write_batch(batch)

    def do_put(self, _context: Any, _descriptor: Any, reader: Any, _writer: Any) -> None:
        for chunk in reader:
            np.add(self.weights, chunk.data.column(0).to_numpy(), out=self.weights)

    def do_get(self, _context: Any, _ticket: Any) -> Any:
        batch = self._batch()
        return flight.GeneratorStream(batch.schema, [batch])


def _flight_server(ready: Any, count: int) -> None:
    server = _FlightServer(count)
    ready.send(("127.0.0.1", server.port))
    server.serve()


@contextmanager
def _process(target: Any, count: int) -> Iterator[tuple[str, int]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(theirs, count))
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _own(address: tuple[str, int], stack: contextlib.ExitStack) -> Round:
    connection = stack.enter_context(wire.connect(address, SECRET))

    def once(gradient: np.ndarray) -> np.ndarray:
        messages.send(connection, {"op": "push"}, [gradient])
        _, arrays, _ = messages.receive(connection, most_bytes=gradient.nbytes)
        return arrays[0]

    return once


def _options() -> Any:
    return flight.FlightCallOptions(headers=[(b"authorization", SECRET.hex().encode())])


def _exchange(address: tuple[str, int], stack: contextlib.ExitStack) -> Round:
    client = stack.enter_context(flight.connect(f"grpc://{address[0]}:{address[1]}"))
    descriptor = flight.FlightDescriptor.for_command(b"push")
    writer, reader = client.do_exchange(descriptor, _options())
    writer.begin(pa.schema([("g", pa.float32())]))
    stack.callback(writer.close)

    def once(gradient: np.ndarray) -> np.ndarray:
        writer.write_batch(pa.record_batch([pa.array(gradient)], names=["g"]))
        weights: np.ndarray = reader.read_chunk().data.column(0).to_numpy()
        return weights

    return once


def _put_get(address: tuple[str, int], stack: contextlib.ExitStack) -> Round:
    client = stack.enter_context(flight.connect(f"grpc://{address[0]}:{address[1]}"))
    descriptor = flight.FlightDescriptor.for_command(b"push")
    schema = pa.schema([("g", pa.float32())])

    def once(gradient: np.ndarray) -> np.ndarray:
        writer, _ = client.do_put(descriptor, schema, _options())
        writer.write_batch(pa.record_batch([pa.array(gradient)], schema=schema))
        writer.close()
        table = client.do_get(flight.Ticket(b"w"), _options()).read_all()
        weights: np.ndarray = table.column(0).to_numpy()
        return weights

    return once


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    for name, count in SIZES.items():
        gradient = np.ones(count, np.float32)
        with contextlib.ExitStack() as stack:
            own = stack.enter_context(_process(_own_server, count))
            theirs = stack.enter_context(_process(_flight_server, count))
            rounds = {
                "own": _own(own, stack),
                "Flight DoExchange": _exchange(theirs, stack),
                "Flight DoPut+DoGet": _put_get(theirs, stack),
            }
            seconds: dict[str, list[float]] = {contender: [] for contender in rounds}
            for contender, once in rounds.items():
                assert len(once(gradient)) == count, contender  # warm
            for _ in range(options.repeats):
                for contender, once in rounds.items():
                    done, began = 0, time.perf_counter()
                    while done < 3 or time.perf_counter() - began < options.seconds:
                        once(gradient)
                        done += 1
                    seconds[contender].append((time.perf_counter() - began) / done)
        line = [f"{name:15}"]
        for contender, found in seconds.items():
            ratio = median(b / a for a, b in zip(seconds["own"], found, strict=True))
            line.append(f"{contender} {1e3 * median(found):8.3f} ms ({ratio:.2f}x)")
        print(" | ".join(line), flush=True)


if __name__ == "__main__":
    main()
