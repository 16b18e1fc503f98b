"""Robustness: how much of its accuracy a network keeps when its images are distorted.

Following D. Hendrycks, T. Dietterich, "Benchmarking neural network robustness to common corruptions
and perturbations", ICLR 2019: each kind of distortion at several strengths, on the images of a test
part. It departs from them in that strengths are physical quantities (pixels, degrees, parts of
full scale) that the user sets, and in that accuracies are told beside the clean one with intervals
rather than divided by those of AlexNet.
"""
