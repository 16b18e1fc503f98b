"""One training step over logical shards: see `sixfold.step.step`."""
