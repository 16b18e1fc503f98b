"""Several computations that advance together from one common sum to the next.

Synchronised batch-norm needs, in the middle of a shard's forward and backward pass, sums over all
shards of the step. Each of a rank's shards therefore runs in a thread of its own, used as a
coroutine: exactly one runs at a time, until it asks for a sum; when all have asked, the rank adds
the contributions in the tree, together with the other ranks, and lets each go on with the total.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sixfold.distributed.logical_shards import Node, TreeFold
from sixfold.distributed.process_group import Buffer

TotalSum = Callable[[list[tuple[Node, Buffer]], Buffer], Buffer]
"""Adds the partial sums of all ranks: (this rank's nodes, vector for the result) -> result."""


@dataclass(frozen=True, kw_only=True)
class SharedState:
    """State that all computations use and each must find as it left it: buffers, random state.

    Attributes:
        save: returns a copy of the state.
        restore: puts a copy back.
    """

    save: Callable[[], Any]
    restore: Callable[[Any], None]


class Lockstep:
    """Runs the shards of a rank so that they meet at every sum.

    Attributes:
        totals: the sums of the last run, in the order in which they were asked for. Whoever has
            them can run any one of the shards again by itself (see `replay`).
    """

    def __init__(self) -> None:
        self.totals: list[Tensor] = []
        self._running: _Coroutine | None = None

    def sum(self, contribution: Tensor) -> Tensor:
        """Called from within a shard: the sum of all shards' contributions, in tree order.

        Args:
            contribution: (k,), this shard's.

        Returns:
            (k,), the same on all ranks; shared by all shards, not to be changed.
        """
        if self._running is None:
            raise RuntimeError("a synchronised sum was asked for outside of a step")
        return self._running.yield_(contribution)

    def run(
        self,
        tasks: Sequence[tuple[int, Callable[[], None]]],
        total_sum: TotalSum,
        state: SharedState,
    ) -> None:
        """Run shards to their end.

        Args:
            tasks: (number of the shard, what computes it), in order of the numbers.
            total_sum: adds partial sums over all ranks.
            state: kept apart between the tasks; left as it was found.
        """
        self.totals = []
        found = state.save()
        waiting = [_Coroutine(task) for _, task in tasks]
        states = [found] * len(tasks)
        total: Tensor | None = None
        try:
            while True:
                contributions = []
                for index, coroutine in enumerate(waiting):
                    state.restore(states[index])
                    self._running = coroutine
                    contributions.append(coroutine.resume(total))
                    states[index] = state.save()
                if all(contribution is None for contribution in contributions):
                    return
                total = self._add(tasks, contributions, total_sum)
                self.totals.append(total)
        finally:
            self._running = None
            for coroutine in waiting:
                coroutine.cancel()
            state.restore(found)

    def _add(
        self,
        tasks: Sequence[tuple[int, Callable[[], None]]],
        contributions: Sequence[Tensor | None],
        total_sum: TotalSum,
    ) -> Tensor:
        fold: TreeFold[Tensor] = TreeFold(torch.add)
        for (shard, _), contribution in zip(tasks, contributions, strict=True):
            if contribution is None:
                raise RuntimeError("shards of one step asked for different numbers of sums")
            fold.push(Node(0, shard), contribution)
        out = torch.empty_like(fold.nodes[0][1])
        # Copies: the reduction may overwrite what it is given.
        nodes = [(node, value.clone().numpy()) for node, value in fold.nodes]
        total_sum(nodes, out.numpy())
        return out


def replay(totals: Sequence[Tensor]) -> TotalSum:
    """A `TotalSum` that gives the totals of an earlier run again, to recompute a single shard."""
    remaining = iter(totals)

    def total_sum(_: list[tuple[Node, Buffer]], out: Buffer) -> Buffer:
        out[:] = next(remaining).numpy()
        return out

    return total_sum


class _Cancelled(BaseException):
    """Raised inside a coroutine that is not going to be resumed."""


class _Coroutine:
    """A function in a thread that runs only while its owner waits in `resume`."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._given: Tensor | None = None
        self._asked: Tensor | None = None
        self._error: BaseException | None = None
        self._cancelled = False
        self._thread: threading.Thread | None = None

    def resume(self, value: Tensor | None) -> Tensor | None:
        """Let it run until it yields, and return what it yielded; None if it has ended."""
        self._given, self._asked = value, None
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="shard", daemon=True)
            self._thread.start()
        elif not self._thread.is_alive():
            return None
        else:
            self._turn.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self._asked

    def yield_(self, value: Tensor) -> Tensor:
        """From inside: hand out a value, wait, and return what `resume` brings."""
        self._asked = value
        self._back.release()
        self._turn.acquire()
        if self._cancelled:
            raise _Cancelled
        assert self._given is not None
        return self._given

    def cancel(self) -> None:
        """End it if it has not ended by itself."""
        if self._thread is not None and self._thread.is_alive():
            self._cancelled = True
            self._turn.release()
            self._thread.join()

    def _main(self) -> None:
        torch.set_num_threads(1)
        try:
            self._function()
        except _Cancelled:
            return
        except BaseException as error:  # raised again where the owner waits
            self._error = error
        self._back.release()
