"""Launchers: what the command line and the Python API call. One file a job."""

from sixfold.launch.prediction import predict
from sixfold.launch.preparation import prepare
from sixfold.launch.training import train, training_problems

__all__ = ["predict", "prepare", "train", "training_problems"]
