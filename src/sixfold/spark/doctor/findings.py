"""What an examination finds: each thing that was looked at, how it is, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str  # the thing, in two words
    state: State  # "note": a run works, but not as one may expect
    seen: str  # what was seen, and where
    remedy: str = ""  # what to do


def good(what: str, seen: str) -> Finding:
    """A thing that is as it should be."""
    return Finding(what=what, state="ok", seen=seen)


def wrong(what: str, seen: str, remedy: str = "") -> Finding:
    """A thing that keeps a run from working."""
    return Finding(what=what, state="wrong", seen=seen, remedy=remedy)


def note(what: str, seen: str, remedy: str = "") -> Finding:
    """A thing to know."""
    return Finding(what=what, state="note", seen=seen, remedy=remedy)


def lines(findings: Sequence[Finding]) -> list[str]:
    """The findings for a terminal, and how many are wrong.

    >>> lines([good("Python", "3.11"), wrong("Java", "there is none", "install Java 17")])[1:]
    ['wrong  Java    there is none: install Java 17', '1 of 2 checks found something wrong']
    """
    width = max((len(finding.what) for finding in findings), default=0)
    told = []
    for finding in findings:
        remedy = f": {finding.remedy}" if finding.remedy else ""
        told.append(f"{finding.state:<5}  {finding.what:<{width}}  {finding.seen}{remedy}")
    bad = sum(finding.state == "wrong" for finding in findings)
    verdict = (
        f"{bad} of {len(findings)} checks found something wrong" if bad else "nothing is wrong"
    )
    return [*told, verdict]
