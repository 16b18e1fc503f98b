"""What a command reports while it works."""

from collections.abc import Callable, Mapping
from typing import Any

OnEvent = Callable[[Mapping[str, Any]], None]
"""Called with everything that a person may want to see while a run works: plain data with a
``kind``: "note", "prepare", "rank" (where a rank runs), "server" (a
parameter server has started), "progress", "evaluation", "predicted"."""
