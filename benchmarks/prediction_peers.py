"""Other models of a data parallel step, which the planner is held against.

Paleo (H. Qi, E. Sparks, A. Talwalkar, 2017): operations over peak plus bytes over bandwidth.
Alpha-beta: images at the time that one takes, measured on one rank, plus a latency and bytes over
bandwidth. Ernest (S. Venkataraman et al., 2016): T = a + b B/n + c log n + d n with coefficients
that are not negative, fitted to a few runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from sixfold.perf.plan.links import Curve


def sent_bytes(payload_bytes: float, ranks: int) -> float:
    """By a rank, in an all-reduce at its best."""
    return 2 * payload_bytes * (ranks - 1) / ranks


def paleo(
    *,
    flops: float,
    moved_bytes: float,
    peak_flops: float,
    bandwidth: float,
    payload_bytes: float,
    ranks: int,
    link: Curve,
) -> float:
    """Seconds of a step.

    Args:
        flops: of the whole batch, forward and backward.
        moved_bytes: of the same.
        peak_flops: operations a second of a core.
        bandwidth: bytes a second of a core.
        payload_bytes: size of the gradient.
        ranks: how many.
        link: between them.
    """
    own = flops / ranks / peak_flops + moved_bytes / ranks / bandwidth
    return own + sent_bytes(payload_bytes, ranks) / link.bytes_per_s


def alpha_beta(
    *, image_s: float, batch: int, payload_bytes: float, ranks: int, link: Curve
) -> float:
    """Seconds of a step.

    Args:
        image_s: of an image, on one rank.
        batch: images of the step.
        payload_bytes: size of the gradient.
        ranks: how many.
        link: between them.
    """
    own = image_s * batch / ranks
    if ranks == 1:
        return own
    return own + link.latency_s + sent_bytes(payload_bytes, ranks) / link.bytes_per_s


def ernest(runs: Sequence[tuple[int, int, float]]) -> tuple[float, float, float, float]:
    """The coefficients that fit some runs best.

    Args:
        runs: batch, ranks, seconds of a step.

    >>> [round(c, 6) for c in ernest([(b, n, 1 + b / n) for b in (1, 4, 9) for n in (1, 2)])]
    [1.0, 1.0, 0.0, 0.0]
    """
    terms = np.array([_terms(batch, ranks) for batch, ranks, _ in runs])
    seconds = np.array([took for _, _, took in runs])
    # Relative errors count, as they are what predictions are judged by.
    found, _ = nnls(terms / seconds[:, None], np.ones(len(runs)))
    return tuple(float(value) for value in found)  # type: ignore[return-value]


def ernest_s(coefficients: Sequence[float], batch: int, ranks: int) -> float:
    """Seconds of a step by fitted coefficients."""
    return float(np.dot(coefficients, _terms(batch, ranks)))


def _terms(batch: int, ranks: int) -> list[float]:
    return [1.0, batch / ranks, float(np.log(ranks)), float(ranks)]
