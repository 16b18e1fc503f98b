"""Counter-based randomness: a 64-bit key from what a draw is for, instead of a state passed along.

Whoever needs the random numbers of (seed, step, shard) makes a fresh generator from their key, so
any rank can draw what any other would have drawn.
"""

import hashlib


def key(*parts: int | str) -> int:
    """A 64-bit key in [0, 2**63), the same on every machine and in every version.

    The parts, integers of any size and strings, name the draw, such as (seed, "order", epoch).

    >>> key(0, "order", 1) == key(0, "order", 1) != key(0, "order", 2)
    True
    """
    # The letter keeps 1 and "1" apart, the separator ("ab", "c") and ("a", "bc"). int() makes
    # NumPy's integers the same as Python's.
    text = "\x1f".join(f"s{part}" if isinstance(part, str) else f"i{int(part)}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
