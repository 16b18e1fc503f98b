"""Sixfold: train convolutional networks in parallel along any of a convolution's loops.

>>> import sixfold
>>> settings = sixfold.configure(data="digits", resize=28, model="lenet5", epochs=3, workers=2)
>>> settings.training.epochs
3

``sixfold.train(settings)`` trains and returns the figures of ``result.json``;
``sixfold.predict(...)`` classifies a data set with a finished run; ``sixfold.compress(...)``
prunes, shares and codes its weights; ``sixfold.evaluate_robustness(...)`` tells how its accuracy
stands up to distorted images; ``sixfold.load(path)`` gives a trained network, compressed
or not; ``sixfold.prepare(...)`` turns images into tensor shards. Nothing heavy is imported before
one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sixfold.compress.loading import load
    from sixfold.core.config import CompressConfig, PredictConfig, PrepareConfig, TrainConfig, configure
    from sixfold.core.errors import RunError, UserError
    from sixfold.train.launch_names import predict, prepare, train
    from sixfold.compress.run import compress
    from sixfold.predict.robustness.run import evaluate_robustness

__version__ = "0.1.0"

__all__ = [
    "CompressConfig",
    "PredictConfig",
    "PrepareConfig",
    "RunError",
    "TrainConfig",
    "UserError",
    "compress",
    "configure",
    "evaluate_robustness",
    "load",
    "predict",
    "prepare",
    "train",
]

_HOMES = {
    "CompressConfig": "config",
    "compress": "launch.compression",
    "PredictConfig": "config",
    "PrepareConfig": "config",
    "TrainConfig": "config",
    "configure": "config",
    "evaluate_robustness": "launch.evaluation",
    "RunError": "errors",
    "UserError": "errors",
    "load": "compression.loading",
    "predict": "launch",
    "prepare": "launch",
    "train": "launch",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'sixfold' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sixfold.{_HOMES[name]}"), name)
