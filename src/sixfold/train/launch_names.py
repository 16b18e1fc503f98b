"""Launchers: what the command line and the Python API call. One file a job."""

from sixfold.predict.run import predict
from sixfold.data.run import prepare
from sixfold.train.run import train, training_problems

__all__ = ["predict", "prepare", "train", "training_problems"]
