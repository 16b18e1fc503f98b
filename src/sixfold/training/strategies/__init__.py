"""Strategies: what ranks do with steps. One file each, with its guarantee in its docstring."""
