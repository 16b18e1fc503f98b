"""Losses: one file for each kind, one row of `sixfold.training.losses.registry` for each name."""
