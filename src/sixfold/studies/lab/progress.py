"""What a study is at, of how many parts, and about how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Tells of the parts of a study as they begin."""

    def __init__(self, total: int, show: Callable[[str], None]) -> None:
        self._total, self._show = total, show
        self._begun, self._at = 0, time.monotonic()

    def begin(self, what: str) -> None:
        """The next part begins; parts before it tell how long the rest may take."""
        left = ""
        if self._begun:
            each = (time.monotonic() - self._at) / self._begun
            left = f", about {each * (self._total - self._begun) / 60:.1f} min left"
        self._begun += 1
        self._show(f"[{self._begun} of {self._total}] {what}{left}")
