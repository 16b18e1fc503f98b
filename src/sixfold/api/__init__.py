"""The functions of the Python API that need more than one package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.api.functions import train
    from sixfold.api.result import TrainResult, open_run

__all__ = ["TrainResult", "open_run", "train"]

__getattr__ = lazy(__name__, {"TrainResult": "result", "open_run": "result", "train": "functions"})
