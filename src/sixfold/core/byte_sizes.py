"""Sizes in bytes, as options and Spark's settings write them."""

import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """A size in bytes; a `ValueError` if it is none.

    >>> parse_size("1g"), parse_size("512MB"), parse_size("300")
    (1073741824, 536870912, 300)
    """
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2]]


def written(size: int) -> str:
    """A size as `parse_size` reads it.

    >>> written(65536), written(1000)
    ('64K', '1000')
    """
    for unit in ("G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)
