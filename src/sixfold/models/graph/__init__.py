"""A module as a graph of calls with shapes."""
