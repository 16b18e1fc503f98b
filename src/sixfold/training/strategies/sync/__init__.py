"""Synchronous data parallel: gradients are added in every step."""
