"""Why did the process group fail? The first cause among the symptoms that arrive with it.

When a rank is killed, its neighbours often complain before the news of its death is in. So a
cause (an exception, an exit status, a verdict of being hung) is believed at once, while a symptom
waits a moment for the cause to turn up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sixfold.distributed.process_group.faults import Fault

Symptom = Literal["peer", "connection"]
"""A rank complains about a peer; a rank's connection to the launcher broke, which is closer to
the cause."""

GRACE_S: Mapping[str, float] = {"peer": 3.0, "connection": 1.5}
"""How long a symptom waits for its cause: a rank's complaint for news of its peer, a broken
connection for the exit status of its process."""

_CLOSENESS: Mapping[str, int] = {"peer": 0, "connection": 1}


class FailureDiagnosis:
    """Collects the symptoms of one failed generation.

    >>> inquest = FailureDiagnosis()
    >>> inquest.add(Fault(kind="lost", rank=1, host="here", cause="gone"), "connection", now=10.0)
    >>> inquest.verdict(now=11.0), inquest.verdict(now=12.0).cause
    (None, 'gone')
    """

    def __init__(self, graces_s: Mapping[str, float] = GRACE_S) -> None:
        self.best: Fault | None = None  # the closest symptom so far
        self.due: float | None = None  # when it will be taken for the cause
        self._graces_s = graces_s
        self._closeness = -1

    def add(self, fault: Fault, symptom: Symptom, now: float) -> None:
        """Take in a symptom; of several that are equally close the first counts."""
        if _CLOSENESS[symptom] > self._closeness:
            self.best, self._closeness = fault, _CLOSENESS[symptom]
            self.due = now + self._graces_s[symptom]

    def verdict(self, now: float) -> Fault | None:
        """What must be taken for the cause by now, if anything."""
        return self.best if self.due is not None and now >= self.due else None
