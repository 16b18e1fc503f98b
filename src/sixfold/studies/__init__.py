"""Studies over many runs and over Spark: sweeps, the laboratory, the loops of a convolution."""
