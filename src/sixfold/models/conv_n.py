"""Conv-2, Conv-4 and Conv-6: the scaled-down VGG networks of the lottery ticket papers.

J. Frankle, M. Carbin, "The lottery ticket hypothesis: finding sparse, trainable neural networks",
ICLR 2019, figure 2. One, two or three pairs of 3x3 convolutions (64, 128, 256 maps), each pair
followed by 2x2 max-pooling, then linear layers of 256, 256 and K. Weights are drawn by the Glorot
normal rule.

Their sizes on CIFAR-10 follow from the layers: 4,301,642, 2,425,930 and 2,262,602 parameters. The
paper's table says 4.3M, 2.4M and, for Conv-6, 1.7M with 1.1M in convolutions; the last does not
follow from the layers that the same table lists (1.15M in convolutions, 1.12M in linear layers).

Legend: C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict

from torch import nn

from sixfold.models.initialise import glorot_normal
from sixfold.models.shapes import Shape, flat_features


def conv2(shape: Shape, classes: int) -> nn.Sequential:
    """2 conv 64, FC 256, 256: Conv-2 of lottery tickets, for CIFAR-10."""
    return _conv_n((64,), shape, classes)


def conv4(shape: Shape, classes: int) -> nn.Sequential:
    """2 conv 64, 2 conv 128, FC 256, 256: Conv-4 of lottery tickets, for CIFAR-10."""
    return _conv_n((64, 128), shape, classes)


def conv6(shape: Shape, classes: int) -> nn.Sequential:
    """2 conv 64, 2 conv 128, 2 conv 256, FC 256, 256: Conv-6 of lottery tickets, for CIFAR-10."""
    return _conv_n((64, 128, 256), shape, classes)


def _conv_n(maps: tuple[int, ...], shape: Shape, classes: int) -> nn.Sequential:
    """A pair of convolutions and a pool for each of `maps`, then three linear layers."""
    layers: list[nn.Module] = []
    before = shape[0]
    for count in maps:
        layers += [nn.Conv2d(before, count, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(count, count, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        before = count
    features = nn.Sequential(*layers)
    classifier = nn.Sequential(
        nn.Flatten(),
        nn.Linear(flat_features(features, shape), 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )
    return glorot_normal(nn.Sequential(OrderedDict(features=features, classifier=classifier)))
