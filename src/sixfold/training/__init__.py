"""Training: the run, its ranks, its steps and strategies."""
