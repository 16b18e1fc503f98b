"""Networks divided over ranks: who holds which part of every tensor, and what is exchanged.

A `layout.Layout` says who holds what; a `move.Move` is the exchange that leads from one layout to
another; `network.divide` turns a network of supported layers into the part of it that one rank
computes.
"""
