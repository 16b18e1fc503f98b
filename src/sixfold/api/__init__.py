"""The functions of the Python API that need more than one package."""

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy

if TYPE_CHECKING:
    from sixfold.api.functions import lr_find, train
    from sixfold.api.result import TrainResult, open_run
    from sixfold.api.tuning import TuneResult, tune

__all__ = ["TrainResult", "TuneResult", "lr_find", "open_run", "train", "tune"]

__getattr__ = lazy(
    __name__,
    {
        "functions": ("lr_find", "train"),
        "result": ("TrainResult", "open_run"),
        "tuning": ("TuneResult", "tune"),
    },
)
