"""One training step over logical shards: see `sixfold.train.step.step`."""
