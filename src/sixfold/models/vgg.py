"""VGG-16.

K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition",
ICLR 2015, configuration D: thirteen 3x3 convolutions in five stages, each ended by 2x2
max-pooling, then linear layers of 4096, 4096 and K with dropout 0.5.

The form for CIFAR, which papers on pruning use, has a single linear layer 512 -> K and batch-norm
behind every convolution. Convolutions keep their biases there too, as in the counts that those
papers give (14,728,266). Weights are drawn by He's rule, since the paper's own (training smaller
networks first) its authors call unnecessary.

Legend: C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict

from torch import nn

from sixfold.models.initialise import he_normal
from sixfold.models.shapes import Shape, flat_features
from sixfold.models.stem import check_dropout, choose

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(
    shape: Shape,
    classes: int,
    *,
    form: str = "auto",
    batch_norm: bool | None = None,
    dropout: float = 0.5,
) -> nn.Sequential:
    """13 conv 3x3, FC 4096, 4096 (CIFAR form: one FC): VGG-16, for ImageNet and CIFAR-10.

    H and W at least 32. `form` "auto" is cifar if the shorter side is below 64 pixels;
    `batch_norm` behind every convolution is the default only there; `dropout` before the second
    and third linear layer, of which it has none.
    """
    check_dropout(dropout)
    cifar = choose(form, ("cifar", "imagenet"), shape, name="form") == "cifar"
    layers: list[nn.Module] = []
    before = shape[0]
    for stage in _STAGES:
        for maps in stage:
            layers.append(nn.Conv2d(before, maps, 3, padding=1))
            if cifar if batch_norm is None else batch_norm:
                layers.append(nn.BatchNorm2d(maps))
            layers.append(nn.ReLU())
            before = maps
        layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers)
    flat = flat_features(features, shape)
    hidden: list[nn.Module] = []
    if not cifar:
        hidden += [nn.Linear(flat, 4096), nn.ReLU(), nn.Dropout(dropout)]
        hidden += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout)]
        flat = 4096
    classifier = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(flat, classes))
    return he_normal(nn.Sequential(OrderedDict(features=features, classifier=classifier)))
