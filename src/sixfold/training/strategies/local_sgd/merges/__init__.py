"""Merges: how the weights of workers that trained apart become one network's again.

Every rule is a pure function of a *base* (P,), the weights that the merged ones are measured from,
and of *deltas* (n, P), how far each of n workers has moved. Both are float64, whatever the weights
are: the sums then lose nothing that float32 could show. One file a rule, with its maths.
"""
