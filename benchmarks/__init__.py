"""Performance, as ratios to peers in one run."""
