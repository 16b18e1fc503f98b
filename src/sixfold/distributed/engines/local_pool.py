"""Independent items over forked processes: whoever is free takes the next.

Each worker has a socket pair to the launcher, over which items and results are pickled. A worker
that dies loses only the item it had, which goes to a fresh worker.
"""

import contextlib
import functools
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import cloudpickle

from sixfold.core.errors import SixfoldError
from sixfold.distributed.engines import frames
from sixfold.distributed.engines.engine import Item, ItemQueue, PoolCall, Result
from sixfold.distributed.engines.forks import DRAIN_S, END_S, Child, ForkServer, ServerDiedError
from sixfold.distributed.engines.rank_log import PipeReader, RankLog
from sixfold.distributed.process_group.ambient import own_randomness, use_one_thread
from sixfold.distributed.process_group.faults import Fault, describe
from sixfold.distributed.process_group.malloc import retain_freed_memory


@dataclass
class _Worker:
    """A process that works on one item at a time; `index` is that item's, if it has one."""

    number: int
    child: Child
    channel: socket.socket
    index: int | None = None


class LocalPool(Generic[Item, Result]):
    """One map over items; use it once, and close it."""

    def __init__(
        self,
        server: Callable[[], ForkServer],
        call: PoolCall[Item, Result],
        pipes: PipeReader,
        log: RankLog,
    ) -> None:
        """Prepare a map; `server` returns one that can fork, a new one if the last has died."""
        self._server = server
        self._call = call
        self._body = cloudpickle.dumps(call.function)
        self._pipes = pipes
        self._log = log
        self._items = list(call.items)
        self._queue = ItemQueue(len(self._items), call.after)
        self._deaths = [0] * len(self._items)
        self._results: dict[int, Result] = {}
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._host = socket.gethostname()

    def run(self) -> list[Result]:
        """Work through all items; the first that failed raises."""
        self._fill()
        while len(self._results) < len(self._items):
            for key, _ in self._selector.select():
                worker: _Worker = key.data
                received = frames.receive(worker.channel)
                if received is None:
                    self._replace(worker)
                    continue
                index, worker.index = worker.index, None
                assert index is not None, "a worker answered that had no item"
                answer = received[0]
                if isinstance(answer, Fault):
                    raise answer.exception()
                self._results[index] = cloudpickle.loads(answer)
                self._queue.done(index)
                self._fill()
                if more := self._call.on_done(index, self._results[index]):
                    self._items.extend(more)
                    self._deaths += [0] * len(more)
                    self._queue.add(len(more))
                    self._fill()
        return [self._results[index] for index in range(len(self._items))]

    def _fill(self) -> None:
        """Give every free worker an item, and start workers as long as there are items for them."""
        for free in [w for w in self._workers.values() if w.index is None]:
            self._hand_out(free)
        wanted = min(self._call.workers, len(self._items) - len(self._results))
        for number in range(self._call.workers):
            if len(self._workers) >= wanted:
                return
            if number not in self._workers:
                self._hand_out(self._start(number))

    def close(self) -> None:
        """End all workers and wait until they are gone."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.child.kill()
        for worker in workers:
            worker.child.wait(END_S)
            self._forget(worker)
        self._selector.close()

    def _start(self, number: int) -> _Worker:
        for attempt in range(self._call.retries + 1):
            try:
                worker = self._fork(number)
                break
            except ServerDiedError as error:
                if attempt == self._call.retries:
                    raise self._lost(number, str(error)) from None
        self._workers[number] = worker
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        return worker

    def _fork(self, number: int) -> _Worker:
        ours, theirs = socket.socketpair()
        output = self._pipes.pipe(number)
        task = functools.partial(_work, self._body, number, self._host)
        try:
            child = self._server().fork(task, [output, theirs.fileno()], lambda _: None)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(output)
        return _Worker(number, child, ours)

    def _lost(self, number: int, cause: str) -> SixfoldError:
        """The error for a worker that was lost too often."""
        self._pipes.drain(number, DRAIN_S)
        tail = self._log.tail(number)
        fault = Fault(kind="lost", rank=number, host=self._host, cause=cause, log_tail=tail)
        return fault.exception(self._call.retries)

    def _hand_out(self, worker: _Worker) -> None:
        """Give a free worker its next item, if one is ready."""
        worker.index = self._queue.take()
        if worker.index is not None:
            item = cloudpickle.dumps(self._items[worker.index])
            with contextlib.suppress(OSError):  # it is dead: its channel is closed
                frames.send(worker.channel, item)

    def _replace(self, worker: _Worker) -> None:
        """A worker has died: give its item to a fresh one, unless that happened too often."""
        worker.child.kill()  # it may have closed its channel only
        worker.child.wait(END_S)
        index = worker.index
        self._forget(worker)
        if index is not None:
            self._deaths[index] += 1
            if self._deaths[index] > self._call.retries:
                cause = f"{worker.child.cause} while it worked on item {index}"
                raise self._lost(worker.number, cause)
            self._queue.put_back(index)
        if self._queue:
            self._hand_out(self._start(worker.number))

    def _forget(self, worker: _Worker) -> None:
        self._selector.unregister(worker.channel)
        worker.channel.close()
        del self._workers[worker.number]


def _work(body: bytes, number: int, host: str, descriptors: list[int]) -> None:
    """The life of a worker's process: take an item, answer with a pickled result or a fault."""
    use_one_thread()
    retain_freed_memory()
    with socket.socket(fileno=descriptors[0]) as channel:
        function: Callable[[Any], Any] | None = None
        while (received := frames.receive(channel)) is not None:
            try:
                with own_randomness(0):
                    if function is None:
                        function = cloudpickle.loads(body)
                    answer: Any = cloudpickle.dumps(function(cloudpickle.loads(received[0])))
            except BaseException as error:
                answer = describe(error, rank=number, host=host)
            frames.send(channel, answer)
