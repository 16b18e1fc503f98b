"""What went wrong in a rank, in a form that crosses process borders and becomes an error again.

A rank never sends exception objects (that would be pickle): it sends a `Fault`, plain data, and
the launcher makes from it the error that the engines' interface promises. Only classes of
`sixfold.core.errors` are made again under their own name.
"""

from __future__ import annotations

import dataclasses
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sixfold.core import errors

TAIL_LINES = 20
"""Enough for the end of a traceback, few enough for a terminal."""

Kind = Literal["user", "run", "raised", "lost", "peer"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a rank failed."""

    # "user" (a `UserError`), "run" (another `RunError`), "raised" (any other exception), "lost"
    # (the rank died or hung), "peer" (it lost another rank: a consequence rather than a cause)
    kind: Kind
    rank: int
    host: str
    cause: str  # one line
    log_tail: tuple[str, ...] = ()  # last lines of its traceback or of what it had printed
    problems: tuple[str, ...] = ()  # of a `UserError`
    error: str = ""  # name of the class in `sixfold.core.errors`, for "run"
    peer: int = -1  # number of the rank that was lost, for "peer"; -1 for the launcher

    @property
    def retryable(self) -> bool:
        """Whether starting the process group again may help."""
        return self.kind in ("lost", "peer")

    def to_plain(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Fault:
        """From what `to_plain` gave, JSON in between."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        for name in ("log_tail", "problems"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)

    def exception(self, restarts: int = 0) -> errors.SixfoldError:
        """The error to raise in the launcher."""
        if self.kind == "user":
            return errors.UserError(self.problems)
        if self.kind == "run":
            return _run_error(self.error, self.cause)
        failure = errors.RankFailure(
            rank=self.rank, host=self.host, cause=self.cause, log_tail=self.log_tail
        )
        if self.kind == "raised":
            return errors.RankRaisedError(failure, restarts)
        return errors.RankLostError(failure, restarts)


def _run_error(name: str, message: str) -> errors.RunError:
    """An error by the name of its class; a plain `RunError` if there is none that fits."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, errors.RunError):
        try:
            return found(message)
        except TypeError:  # its constructor wants more than a message
            pass
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
        return Fault(kind="peer", rank=rank, host=host, cause=str(error), peer=error.peer)
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
