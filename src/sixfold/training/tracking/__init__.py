"""What a training tells trackers: TensorBoard and the like."""
