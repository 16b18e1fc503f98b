"""The smallest network with every kind of layer: one convolution, ReLU, max-pool, one linear.

The CIFAR-10 exercise network (conv 32 5x5x3 stride 1 pad 2, ReLU, max-pool 2x2, FC 16*16*32 ->
10) on which the project's parallel designs are measured: 84,362 parameters, 97% of them linear.

Legend: C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from sixfold.models.shapes import Shape, flat_features


def slide(shape: Shape, classes: int) -> nn.Sequential:
    """Conv 32 5x5, ReLU, max-pool 2x2, FC: the smallest network, for CIFAR-10.

    Args:
        shape: (C, H, W) of an image; H and W at least 2.
        classes: K.

    >>> sum(p.numel() for p in slide((3, 32, 32), 10).parameters())
    84362
    """
    features = nn.Sequential(
        nn.Conv2d(shape[0], 32, 5, stride=1, padding=2),  # 32 H W
        nn.ReLU(),
        nn.MaxPool2d(2),  # 32 H/2 W/2
    )
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(flat_features(features, shape), classes))
    return nn.Sequential(OrderedDict(features=features, classifier=classifier))
