"""Scoring a data set with a trained network, dense, sparse, and under distortions."""
