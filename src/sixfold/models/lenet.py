"""LeNet-300-100 and LeNet-5.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
recognition", Proc. IEEE 86(11), 1998. LeNet-5 is here in the form that papers on pruning use, the
one of Caffe's MNIST example: 20 and 50 feature maps, max-pooling, one hidden layer of 500, ReLU
only after that, and no activation behind the convolutions. It departs from the paper's sub-sampling
with trainable coefficients, its partly connected second convolution and its RBF output.

Initial weights: LeNet-300-100 Glorot normal with zero biases, as in J. Frankle, M. Carbin, "The
lottery ticket hypothesis" (ICLR 2019); LeNet-5 uniform of variance 1/fan_in with zero biases,
Caffe's "xavier" filler.

Legend: C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict
from math import prod

from torch import nn

from sixfold.models.initialise import caffe_uniform, glorot_normal
from sixfold.models.shapes import Shape, flat_features


def lenet300(shape: Shape, classes: int) -> nn.Sequential:
    """FC 300, FC 100, FC: LeNet-300-100, for MNIST."""
    network = nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(prod(shape), 300),
            relu1=nn.ReLU(),
            fc2=nn.Linear(300, 100),
            relu2=nn.ReLU(),
            fc3=nn.Linear(100, classes),
        )
    )
    return glorot_normal(network)


def lenet5(shape: Shape, classes: int) -> nn.Sequential:
    """Conv 20, pool, conv 50, pool, FC 500, FC: LeNet-5 (20/50/500), for MNIST."""
    features = nn.Sequential(
        nn.Conv2d(shape[0], 20, 5),  # 28 -> 24
        nn.MaxPool2d(2),  # 12
        nn.Conv2d(20, 50, 5),  # 8
        nn.MaxPool2d(2),  # 4
    )
    classifier = nn.Sequential(
        nn.Flatten(),
        nn.Linear(flat_features(features, shape), 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )
    return caffe_uniform(nn.Sequential(OrderedDict(features=features, classifier=classifier)))
