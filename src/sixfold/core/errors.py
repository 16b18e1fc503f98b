"""Typed errors: what was wrong, what was expected, what to do.

Two families, told apart by the exit code of the command line:

* `UserError` (exit 2): wrong input or configuration. Carries every problem found, one line each.
* `RunError` (exit 1): the run itself failed. A `RunError` would happen again if the run were
  repeated (a non-finite loss, an exception in the user's network); a `RankLostError` is one that
  a restart may cure (a killed process, a vanished host).
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Text whose control characters and broken Unicode are escapes: names may hold any.

    >>> print(printable("Icon\r: zero bytes"))
    Icon\r: zero bytes
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class SixfoldError(Exception):
    """Base of all errors that Sixfold raises on purpose."""

    exit_code = 1


class UserError(SixfoldError):
    """Wrong input or configuration: a list of problems, each one line with its remedy.

    >>> str(UserError("unknown model 'lenet6': did you mean lenet5?"))
    "unknown model 'lenet6': did you mean lenet5?"
    >>> UserError(["a", "b"]).problems
    ('a', 'b')
    """

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: the problems, not the calls that found them."""
        return [type(self).__name__ + ":", *map(printable, self.problems)]


def raise_problems(problems: str | Collection[str]) -> None:
    """A `UserError` with all problems, if there are any."""
    if problems:
        raise UserError(problems)


def problems_of(*checks: Callable[[], object]) -> list[str]:
    """The problems with which checks raise a `UserError`, all of them."""
    found: list[str] = []
    for check in checks:
        with told_together(found):
            check()
    return found


@contextmanager
def told_together(found: list[str]) -> Iterator[None]:
    """Add what is wrong to a list, to be told with the rest of it."""
    try:
        yield
    except UserError as error:
        found += error.problems


class RunError(SixfoldError):
    """The run failed in a way that repeating it would not cure."""


class PeerLostError(SixfoldError):
    """Seen from inside a rank: another rank, or the launcher, is no longer there."""

    def __init__(self, peer: int, detail: str = "") -> None:
        self.peer = peer
        super().__init__(f"rank {peer} is gone" + (f": {detail}" if detail else ""))


class UnfitRankError(PeerLostError):
    """This rank must not go on with the others, which do without it."""


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """What is known of a rank that died."""

    rank: int
    host: str
    cause: str  # one line, such as "killed by signal 9 (SIGKILL)" or "ValueError: ..."
    log_tail: tuple[str, ...] = ()  # last lines of its traceback or of what it had printed


class RankLostError(RunError):
    """A rank died of something that a restart may cure; carries the facts of the first to die."""

    def __init__(self, failure: RankFailure, restarts: int = 0) -> None:
        self.failure = failure
        self.restarts = restarts
        after = f" (after {restarts} restart{'s' if restarts != 1 else ''})" if restarts else ""
        lines = [f"rank {failure.rank} on {failure.host} died{after}: {failure.cause}"]
        if failure.log_tail:
            lines.append("last lines of its log:")
            lines += [f"  {line}" for line in failure.log_tail]
        super().__init__("\n".join(lines))


class RankRaisedError(RankLostError):
    """A rank's own code raised: repeating the run would raise again, so it is never restarted."""


class NonFiniteLossError(RunError):
    """The loss became infinite or NaN: the run stops and keeps the last good checkpoint."""


class AuditError(RunError):
    """Two ranks computed a shard to different bits: one of their processors is at fault."""


class UnsupportedError(UserError):
    """A layer that cannot be divided; the message says why and what to do."""
