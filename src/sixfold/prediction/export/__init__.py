"""`sixfold export`: a trained network for other programs, with normalisation inside."""
