"""What `result.json` of a training must hold to be shown again."""

from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError

_NUMBER = (int, float)
_RESULT: dict[str, type | tuple[type, ...]] = {
    "steps": int,
    "epochs": _NUMBER,
    "workers": int,
    "restarts": int,
    "wall_s": _NUMBER,
    "startup_s": _NUMBER,
    "engine": str,
    "strategy": str,
    "report": str,
    "weights_sha256": str,
}
"""What every finished training's result has."""

_MORE: dict[str, type | tuple[type, ...]] = {
    "test_accuracy": _NUMBER,
    "test_loss": _NUMBER,
    "train_images_per_s": (*_NUMBER, type(None)),
    "balanced_accuracy": (*_NUMBER, type(None)),
    "bad_files": list,
    "native_kernels": list,
}
"""What some have."""


def refuse_damaged(result: dict[str, Any], file: Path) -> None:
    """Raise if a result that is to be told again is not as a training writes it."""
    wrong = [name for name, kind in _RESULT.items() if not isinstance(result.get(name), kind)]
    wrong += [n for n, kind in _MORE.items() if n in result and not isinstance(result[n], kind)]
    if wrong:
        raise UserError(
            f"{file} is damaged (no {wrong[0]} as a training writes it): remove it and go on with "
            "--resume, which makes it anew from the last checkpoint"
        )
