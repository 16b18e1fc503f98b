"""The weights of the one worker that is best on the validation part.

    w = base + delta_k    with  k = argmax over workers of accuracy_k

Of equally accurate workers the one with the least loss wins, then the first. What the others have
learned in the round is thrown away: a race, whose loss of information is what the other rules are
measured against.
"""

from collections.abc import Sequence


def best_of(scores: Sequence[tuple[float, float]]) -> int:
    """Number of the best worker by its (accuracy, loss) on the validation part.

    A loss that is no number, from weights that have diverged, counts as infinite.

    >>> best_of([(0.5, 1.0), (0.6, 2.0), (0.6, 1.5)])
    2
    """

    def rank(number: int) -> tuple[float, float, int]:
        accuracy, loss = scores[number]
        return -accuracy, loss if loss == loss else float("inf"), number

    return min(range(len(scores)), key=rank)
