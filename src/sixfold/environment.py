"""The only place where environment variables are read."""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "SIXFOLD_"


def cache_directory() -> Path:
    """Where prepared data sets are kept: ``SIXFOLD_CACHE``, else ``~/.cache/sixfold``."""
    chosen = os.environ.get("SIXFOLD_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "sixfold"


def settings_from_environment() -> dict[str, str]:
    """Settings given as ``SIXFOLD_<NAME>``, by name in lower case, such as ``batch_size``."""
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and value and name != "SIXFOLD_CACHE"
    }
