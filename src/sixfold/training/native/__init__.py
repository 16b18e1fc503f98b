"""Kernels of our own, in C, where the library is far from the machine's limit."""
