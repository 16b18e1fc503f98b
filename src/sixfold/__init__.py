"""Sixfold: train convolutional networks in parallel along any of a convolution's loops."""

__version__ = "0.1.0"
