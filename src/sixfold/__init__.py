"""Sixfold: train convolutional networks in parallel along any of a convolution's loops.

>>> import sixfold
>>> settings = sixfold.configure(data="digits", resize=28, model="lenet5", epochs=3, workers=2)
>>> settings.training.epochs
3

``sixfold.train(model, data, ...)`` trains; its result has the figures of ``result.json``, the
history and the network, and ``sixfold.open_run(path)`` gives it again;
``sixfold.predict(...)`` classifies a data set with a finished run; ``sixfold.compress(...)``
prunes, shares and codes its weights; ``sixfold.evaluate_robustness(...)`` tells how its accuracy
stands up to distorted images; ``sixfold.load(path)`` gives a trained network, compressed
or not, and ``sixfold.export(...)`` writes it for other programs;
``sixfold.prepare(...)`` turns images into tensor shards. ``tune`` searches over settings of
training; ``plan``, ``profile``, ``tickets`` and ``lca_learn`` are the commands of these names.
Nothing heavy is imported before one of them is used.
"""

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazy
from sixfold.core.version import __version__

if TYPE_CHECKING:
    from sixfold.api import TrainResult, TuneResult, lr_find, open_run, train, tune
    from sixfold.api.commands import (
        compress,
        doctor,
        evaluate_robustness,
        export,
        lca_learn,
        plan,
        predict,
        prepare,
        profile,
        tickets,
    )
    from sixfold.compression.config import CompressConfig
    from sixfold.compression.loading import load
    from sixfold.core.errors import RunError, UserError
    from sixfold.data.config import PrepareConfig
    from sixfold.prediction.config import PredictConfig
    from sixfold.studies.tune.config import TuneConfig
    from sixfold.training.callbacks import Log, Moment, SetRate, Stop
    from sixfold.training.config import TrainConfig, configure

__all__ = [
    "CompressConfig",
    "Log",
    "Moment",
    "PredictConfig",
    "PrepareConfig",
    "RunError",
    "SetRate",
    "Stop",
    "TrainConfig",
    "TrainResult",
    "TuneConfig",
    "TuneResult",
    "UserError",
    "__version__",
    "compress",
    "configure",
    "doctor",
    "evaluate_robustness",
    "export",
    "figures",
    "lca_learn",
    "load",
    "lr_find",
    "open_run",
    "plan",
    "predict",
    "prepare",
    "profile",
    "tickets",
    "train",
    "tune",
]

__getattr__ = lazy(
    __name__,
    {
        "api.commands": (
            "compress",
            "doctor",
            "evaluate_robustness",
            "export",
            "lca_learn",
            "plan",
            "predict",
            "prepare",
            "profile",
            "tickets",
        ),
        "api.functions": ("lr_find", "train"),
        "api.result": ("TrainResult", "open_run"),
        "api.tuning": ("TuneResult", "tune"),
        "compression.config": ("CompressConfig",),
        "compression.loading": ("load",),
        "core.errors": ("RunError", "UserError"),
        "data.config": ("PrepareConfig",),
        "prediction.config": ("PredictConfig",),
        "studies.tune.config": ("TuneConfig",),
        "training.callbacks": ("Log", "Moment", "SetRate", "Stop"),
        "training.config": ("TrainConfig", "configure"),
        "training.report.page": ("figures",),
    },
)
