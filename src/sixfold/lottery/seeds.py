"""Seeds of members: each an order of the data, and a draw of what a control draws."""

from __future__ import annotations

from sixfold.core.random_keys import key


def member_seed(seed: int, number: int, purpose: str) -> int:
    """The seed of a member's training.

    Args:
        seed: of the dense run.
        number: of the member among those of its cell.
        purpose: "order" for one that begins with the dense run's weights, and whose number 0 goes
            on in the dense run's own order of the data; else what is drawn anew.
    """
    if number == 0 and purpose == "order":
        return seed
    return key(seed, "ticket", purpose, number) % (1 << 31)
