"""Notes when each exchange of a rank was begun, waited for and done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sixfold.distributed.process_group.communicator import (
    Buffer,
    Finish,
    PlainData,
    Seat,
    Transport,
)


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """One exchange of one rank; seconds of a clock that all ranks share."""

    begun: float  # what is sent was there
    started: float  # the rank went on to compute; of one that it waits for at once, `ended`
    ended: float  # the rank began to wait for its end
    done: float
    sends: tuple[int, ...]  # peers, in the numbers of the whole group
    receives: tuple[int, ...]

    def moved(self, by_s: float) -> Exchanged:
        """By another clock."""
        times = {name: getattr(self, name) + by_s for name in TIMES}
        return Exchanged(**times, sends=self.sends, receives=self.receives)

    def as_plain(self) -> list[Any]:
        """As JSON holds it."""
        times = [getattr(self, name) for name in TIMES]
        return [*times, list(self.sends), list(self.receives)]

    @classmethod
    def of(cls, plain: list[Any]) -> Exchanged:
        """From what `as_plain` made."""
        *times, sends, receives = plain
        named = dict(zip(TIMES, times, strict=True))
        return cls(**named, sends=tuple(sends), receives=tuple(receives))


TIMES = ("begun", "started", "ended", "done")


class NotedTransport:
    """A transport that notes exchanges while `noted` is a list."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.noted: list[Exchanged] | None = None

    def exchange(
        self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]
    ) -> tuple[float, float]:
        if self.noted is None:
            return self._inner.exchange(sends, receives)
        begun = time.perf_counter()
        found = self._inner.exchange(sends, receives)
        self._note(begun, begun, begun, sends, receives)
        return found

    def start(self, sends: Mapping[int, Buffer], receives: Mapping[int, Buffer]) -> Finish:
        begun = time.perf_counter()
        finish = self._inner.start(sends, receives)
        started = time.perf_counter()

        def end() -> tuple[float, float]:
            ended = time.perf_counter()
            found = finish()
            self._note(begun, started, ended, sends, receives)
            return found

        return end if self.noted is not None else finish

    def _note(
        self,
        begun: float,
        started: float,
        ended: float,
        sends: Mapping[int, Buffer],
        receives: Mapping[int, Buffer],
    ) -> None:
        if self.noted is not None:
            self.noted.append(
                Exchanged(
                    begun=begun,
                    started=started,
                    ended=ended,
                    done=time.perf_counter(),
                    sends=tuple(sends),
                    receives=tuple(receives),
                )
            )

    def report(self, event: PlainData) -> None:
        self._inner.report(event)

    def should_stop(self) -> bool:
        return self._inner.should_stop()

    def should_renew(self) -> bool:
        return self._inner.should_renew()

    def renew(self) -> Seat:
        return self._inner.renew()
