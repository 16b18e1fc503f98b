"""Lock-free updates of weights that the ranks of a machine share."""
