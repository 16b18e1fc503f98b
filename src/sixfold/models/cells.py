"""A three-convolution network for microscope images of blood cells.

Convolutions given as maps, kernel/stride/padding: 32 11/3/2, 64 6/2/1, 128 3/1/1, each followed by
ReLU and 2x2 max-pooling, then one linear layer. A side of 256 pixels goes 256 -> 84 -> 42 -> 20
-> 10 -> 10 -> 5, so that the linear layer takes 128*5*5 = 3200 features.

Legend: C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict

from torch import nn

from sixfold.models.initialise import initialised
from sixfold.models.shapes import Shape, flat_features


def cells(shape: Shape, classes: int, kernel: int = 11, init: str = "torch") -> nn.Sequential:
    """Conv 32 11/3/2, conv 64 6/2/1, conv 128 3/1/1, FC: for 256x256 blood cells.

    `kernel` is the first convolution's; `init` a name of `sixfold.models.initialise.RULES`.
    """
    if kernel < 1:
        raise ValueError(f"kernel={kernel} must be at least 1")
    features = nn.Sequential(
        nn.Conv2d(shape[0], 32, kernel, stride=3, padding=2),  # 256 -> 84
        nn.ReLU(),
        nn.MaxPool2d(2),  # 42
        nn.Conv2d(32, 64, 6, stride=2, padding=1),  # 20
        nn.ReLU(),
        nn.MaxPool2d(2),  # 10
        nn.Conv2d(64, 128, 3, stride=1, padding=1),  # 10
        nn.ReLU(),
        nn.MaxPool2d(2),  # 5
    )
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(flat_features(features, shape), classes))
    network = nn.Sequential(OrderedDict(features=features, classifier=classifier))
    return initialised(network, init)
