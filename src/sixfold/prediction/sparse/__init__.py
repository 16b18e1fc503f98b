"""Pruned layers in the form that is fastest, found by measuring."""
