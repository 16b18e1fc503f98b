"""Augmentation of training images: one row of `registry.py` for each way, one file for each idea.

Images are uint8 (n, C, H, W), before normalisation; everything is computed for many images at
once, element by element in one thread of NumPy.
"""
