"""Launchers: what the command line and the Python API call. One file a job."""

from sixfold.launch.predict import predict
from sixfold.launch.train import train

__all__ = ["predict", "train"]
