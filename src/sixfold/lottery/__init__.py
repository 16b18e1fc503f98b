"""Lottery tickets: sparse networks that train as well as the dense one that they were cut from.

J. Frankle, M. Carbin, "The lottery ticket hypothesis: finding sparse, trainable neural networks",
ICLR 2019; J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin, "Linear mode connectivity and the
lottery ticket hypothesis", ICML 2020. A dense network is trained once; M masks are made from its
final weights, smallest magnitudes first; each of N early states of it is put under each mask and
trained to the end: an M x N trellis of independent trainings.
"""
