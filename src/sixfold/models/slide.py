"""The smallest network with every kind of layer: one convolution, ReLU, max-pool, one linear.

The CIFAR-10 exercise network (conv 32 5x5x3 stride 1 pad 2, ReLU, max-pool 2x2, FC 16*16*32 ->
10) on which the project's parallel designs are measured: 84,362 parameters, 97% of them linear.

Legend: C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict

from torch import nn

from sixfold.models.initialise import initialised
from sixfold.models.shapes import Shape, flat_features


def slide(
    shape: Shape, classes: int, kernel: int = 5, maps: int = 32, init: str = "torch"
) -> nn.Sequential:
    """Conv 32 5x5, ReLU, max-pool 2x2, FC: the smallest network, for CIFAR-10.

    The kernel is padded by (kernel - 1) // 2, so that an odd one keeps the size of the image;
    `init` is a name of `sixfold.models.initialise.RULES`.
    """
    if kernel < 1 or maps < 1:
        raise ValueError(f"kernel={kernel} and maps={maps} must be at least 1")
    features = nn.Sequential(
        nn.Conv2d(shape[0], maps, kernel, stride=1, padding=(kernel - 1) // 2),  # 32 H W
        nn.ReLU(),
        nn.MaxPool2d(2),  # 32 H/2 W/2
    )
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(flat_features(features, shape), classes))
    network = nn.Sequential(OrderedDict(features=features, classifier=classifier))
    return initialised(network, init)
