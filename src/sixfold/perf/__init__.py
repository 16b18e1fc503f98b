"""Measuring a training and predicting how to divide it."""
