"""How good predictions are: one file for each kind of targets. Needs NumPy only."""
