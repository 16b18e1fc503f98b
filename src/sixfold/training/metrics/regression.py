"""How near predicted numbers are to the true ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 1000  # images of which true and predicted values are kept for a chart; evenly spaced
MOST_DRAWN = 8  # targets of which they are kept


def errors(target: NDArray[Any], output: NDArray[Any]) -> dict[str, float | None]:
    """Mean absolute error, root mean squared error and R2 of one number, (N,) each.

    >>> errors(np.array([0.0, 2.0]), np.array([0.0, 1.0]))
    {'mae': 0.5, 'rmse': 0.7071067811865476, 'r2': 0.5}
    """
    error = output.astype(np.float64) - target
    if not len(error) or not np.isfinite(error).all():
        return {"mae": None, "rmse": None, "r2": None}
    spread = float(np.square(target - target.mean()).sum())
    squares = float(np.square(error).sum())
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(squares / len(error))),
        "r2": 1 - squares / spread if spread > 0 else None,
    }


def overall(target: NDArray[Any], output: NDArray[Any]) -> dict[str, float | None]:
    """Errors over all (N, K) numbers; R2 is the mean over targets."""
    whole = errors(target.reshape(-1), output.reshape(-1))
    each = [errors(target[:, k], output[:, k])["r2"] for k in range(target.shape[1])]
    known = [value for value in each if value is not None]
    return whole | {"r2": sum(known) / len(known) if known else None}


def summarize(
    target: NDArray[Any], output: NDArray[Any], *, names: Sequence[str], part: str = "test"
) -> dict[str, Any]:
    """The fields of `result.json` that follow from the predictions of one part of the data, (N, K).

    Plain data: `<part>_mae`, `<part>_rmse`, `<part>_r2`, `per_target` (the same of each) and
    `scatter` (true and predicted values of some images, for charts).
    """
    prefix = f"{part}_" if part else ""
    kept = np.unique(np.linspace(0, max(len(target) - 1, 0), MOST_POINTS).round().astype(np.int64))
    kept = kept[: len(target)]
    return {
        **{f"{prefix}{name}": value for name, value in overall(target, output).items()},
        "per_target": [
            {"name": name, **errors(target[:, k], output[:, k])} for k, name in enumerate(names)
        ],
        "scatter": [
            {"name": name, "true": _plain(target[kept, k]), "predicted": _plain(output[kept, k])}
            for k, name in enumerate(names[:MOST_DRAWN])
        ],
    }


def _plain(values: NDArray[Any]) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]
