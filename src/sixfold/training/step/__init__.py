"""One training step over logical shards: see `sixfold.training.step.step`."""
