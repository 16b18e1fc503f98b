"""AlexNet.

A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural
networks", NIPS 2012: five convolutions (the second, fourth and fifth in two groups, one for each
of the paper's two GPUs), overlapping 3x3 max-pooling with stride 2, local response normalisation
behind the first two, linear layers of 4096, 4096 and K with dropout 0.5 before the first two.
60,965,224 parameters on 224x224 images, the network that papers on compression start from.

The form "torchvision" (A. Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", arXiv 1404.5997) is of one GPU: no groups, no response normalisation, fewer maps;
61,100,840 parameters.

Departures: the first convolution is padded by 2, so that 224 pixels give the 55 that the paper
states; weights are drawn by He's rule with zero biases, instead of N(0, 0.01) with some biases 1.

Legend: C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict

from torch import nn

from sixfold.models.initialise import he_normal
from sixfold.models.shapes import Shape, flat_features
from sixfold.models.stem import check_dropout

_MAPS = {"paper": (96, 256, 384, 384, 256), "torchvision": (64, 192, 384, 256, 256)}
"""Form -> maps of each convolution."""


def alexnet(
    shape: Shape,
    classes: int,
    *,
    groups: int | None = None,
    dropout: float = 0.5,
    response_norm: bool | None = None,
    form: str = "paper",
) -> nn.Sequential:
    """5 conv, FC 4096, 4096: AlexNet with its two groups, for ImageNet.

    H and W at least 63. `groups` of the second, fourth and fifth convolution: 2 as in the paper, or
    any other common divisor of 96, 256 and 384; `dropout` before the first and second linear
    layer; `response_norm`: whether there is local response normalisation. `form` "torchvision" is
    that library's: other numbers of maps, without groups and response normalisation.
    """
    check_dropout(dropout)
    if form not in _MAPS:
        raise ValueError(f"form={form} must be paper or torchvision")
    paper = form == "paper"
    groups = (2 if paper else 1) if groups is None else groups
    response_norm = paper if response_norm is None else response_norm
    if groups < 1 or 32 % groups:
        raise ValueError(f"groups={groups} must be 1, 2, 4, 8, 16 or 32")

    maps = _MAPS[form]

    def norm() -> list[nn.Module]:
        # The paper's alpha of 1e-4 multiplies the sum over 5 channels, torch's multiplies the mean.
        return [nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)] if response_norm else []

    features = nn.Sequential(
        nn.Conv2d(shape[0], maps[0], 11, stride=4, padding=2),  # 224 -> 55
        nn.ReLU(),
        *norm(),
        nn.MaxPool2d(3, stride=2),  # 27
        nn.Conv2d(maps[0], maps[1], 5, padding=2, groups=groups),  # 27
        nn.ReLU(),
        *norm(),
        nn.MaxPool2d(3, stride=2),  # 13
        nn.Conv2d(maps[1], maps[2], 3, padding=1),  # 13
        nn.ReLU(),
        nn.Conv2d(maps[2], maps[3], 3, padding=1, groups=groups),  # 13
        nn.ReLU(),
        nn.Conv2d(maps[3], maps[4], 3, padding=1, groups=groups),  # 13
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # 6
    )
    classifier = nn.Sequential(
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(flat_features(features, shape), 4096),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
    return he_normal(nn.Sequential(OrderedDict(features=features, classifier=classifier)))
