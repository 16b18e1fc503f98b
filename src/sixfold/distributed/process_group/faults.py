"""What went wrong in a rank, in a form that crosses process borders and becomes an error again.

A rank never sends exception objects (that would be pickle): it sends a `Fault`, plain data, from
which the launcher makes the error. Only classes of `sixfold.core.errors` keep their name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sixfold.core import errors

TAIL_LINES = 20  # enough for the end of a traceback, few enough for a terminal

Kind = Literal["user", "run", "raised", "lost", "peer", "unfit"]

Symptom = Literal["peer", "connection"]
"""A rank complains about a peer; a rank's connection to the launcher broke, which is closer to
the cause."""

GRACE_S: Mapping[str, float] = {"peer": 3.0, "connection": 1.5}
"""How long a symptom waits for its cause: a rank's complaint for news of its peer, a broken
connection for the exit status of its process."""


@dataclass(frozen=True, kw_only=True)
class Fault(errors.RankFailure):
    """Why a rank failed."""

    # "user" (a `UserError`), "run" (another `RunError`), "raised" (any other exception), "lost"
    # (the rank died or hung), "peer" (it lost another rank: a consequence rather than a cause),
    # "unfit" (it leaves, and its host is excluded)
    kind: Kind
    problems: tuple[str, ...] = ()  # of a `UserError`
    error: str = ""  # name of the class in `sixfold.core.errors`, for "run"
    peer: int = -1  # number of the rank that was lost, for "peer"; -1 for the launcher

    @property
    def retryable(self) -> bool:
        """Whether starting the process group again may help."""
        return self.kind in ("lost", "peer", "unfit")

    def to_plain(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Fault:
        """From what `to_plain` gave, JSON in between."""
        known = {field.name: data.get(field.name) for field in dataclasses.fields(cls)}
        tuples = {name: tuple(data.get(name, ())) for name in ("log_tail", "problems")}
        return cls(**{name: v for name, v in known.items() if v is not None} | tuples)

    def with_log(self, log_tail: tuple[str, ...]) -> Fault:
        """The fault with what the rank had printed, if nothing better is known."""
        return self if self.log_tail else dataclasses.replace(self, log_tail=log_tail)

    def exception(self, restarts: int = 0) -> errors.SixfoldError:
        """The error to raise in the launcher."""
        if self.kind == "user":
            return errors.UserError(self.problems)
        if self.kind == "run":
            return _run_error(self.error, self.cause)
        lost = errors.RankRaisedError if self.kind == "raised" else errors.RankLostError
        return lost(self, restarts)


def _run_error(name: str, message: str) -> errors.RunError:
    """An error by the name of its class; a plain `RunError` if there is none that fits."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, errors.RunError):
        with contextlib.suppress(TypeError):  # its constructor wants more than a message
            return found(message)
    return errors.RunError(message)


def describe(error: BaseException, *, rank: int, host: str) -> Fault:
    """The fault that an exception in a rank's function amounts to.

    >>> fault = describe(ValueError("no"), rank=1, host="here")
    >>> fault.kind, fault.cause
    ('raised', 'ValueError: no')
    >>> str(describe(errors.NonFiniteLossError("step 3"), rank=0, host="here").exception())
    'step 3'
    """
    name = type(error).__name__
    first_line = str(error).partition("\n")[0]
    cause = f"{name}: {first_line}" if first_line else name
    if isinstance(error, errors.UserError):
        return Fault(kind="user", rank=rank, host=host, cause=cause, problems=error.problems)
    if isinstance(error, errors.PeerLostError):
        kind: Kind = "unfit" if isinstance(error, errors.UnfitRankError) else "peer"
        return Fault(kind=kind, rank=rank, host=host, cause=str(error), peer=error.peer)
    if isinstance(error, errors.RunError) and not isinstance(error, errors.RankLostError):
        return Fault(kind="run", rank=rank, host=host, cause=str(error), error=name)
    lines = "".join(traceback.format_exception(error)).splitlines()
    return Fault(
        kind="raised", rank=rank, host=host, cause=cause, log_tail=tuple(lines[-TAIL_LINES:])
    )


def explain_status(status: int) -> str:
    """A process's exit status (negative: the signal that killed it) in words.

    >>> explain_status(-9), explain_status(3)
    ('killed by signal 9 (SIGKILL)', 'exited with status 3')
    """
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:
        name = ""
    return f"killed by signal {-status}{name}"


class FailureDiagnosis:
    """The first cause among the symptoms of one failed generation.

    When a rank is killed, its neighbours often complain before the news of its death is in: so a
    symptom waits a moment for the cause (an exception, an exit status, a rank that hangs).

    >>> found = FailureDiagnosis()
    >>> found.add(Fault(kind="lost", rank=1, host="here", cause="gone"), "connection", now=10.0)
    >>> found.verdict(now=11.0), found.verdict(now=12.0).cause
    (None, 'gone')
    """

    def __init__(self, graces_s: Mapping[str, float] = GRACE_S) -> None:
        self.best: Fault | None = None  # the closest symptom so far
        self.due: float | None = None  # when it will be taken for the cause
        self._graces_s = graces_s
        self._closest: Symptom | None = None

    def add(self, fault: Fault, symptom: Symptom, now: float) -> None:
        """Take in a symptom; of several that are equally close the first counts."""
        if self.best is None or (self._closest, symptom) == ("peer", "connection"):
            self.best, self._closest = fault, symptom
            self.due = now + self._graces_s[symptom]

    def verdict(self, now: float) -> Fault | None:
        """What must be taken for the cause by now, if anything."""
        return self.best if self.due is not None and now >= self.due else None
