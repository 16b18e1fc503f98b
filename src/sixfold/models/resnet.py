"""Residual networks: the CIFAR family (ResNet-20 and deeper), ResNet-18 and ResNet-50.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016.
A block computes relu(F(x) + S(x)), where F is two 3x3 convolutions, or 1x1, 3x3, 1x1 (a
bottleneck), each with batch-norm, and S is the identity unless the shape changes. Then S is
option A, subsampling with zero channels added and no parameters, or option B, a 1x1 convolution.

Departure: a bottleneck's stride is in its 3x3 convolution instead of the first 1x1, which is what
everyone means by ResNet-50 today (25,557,032 parameters either way).

Legend: C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict

from torch import Tensor, nn

from sixfold.models.initialise import he_normal
from sixfold.models.shapes import Shape
from sixfold.models.stem import choose

_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth -> blocks in each of four stages."""


class Block(nn.Module):
    """relu(residual(x) + shortcut(x)); C H W in, K H/stride W/stride out."""

    def __init__(self, residual: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, K, H/stride, W/stride)."""
        out: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return out


def resnet20(shape: Shape, classes: int, *, depth: int = 20, shortcut: str = "A") -> nn.Sequential:
    """3x3 residual network, 16/32/64 maps, depth 6n+2: for CIFAR-10.

    `shortcut`, where maps shrink: "A" (no parameters; the paper's choice on CIFAR-10) or "B" (1x1
    convolution).
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth={depth} must be 6n+2: 8, 14, 20, 32, 44, 56 or 110, say")
    if shortcut not in ("A", "B"):
        raise ValueError(f"shortcut={shortcut} must be A or B")
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(*_conv_norm(shape[0], 16, 3), nn.ReLU())
    )
    before = 16
    for number, maps in enumerate((16, 32, 64), start=1):
        blocks = []
        for index in range((depth - 2) // 6):
            stride = 2 if number > 1 and index == 0 else 1
            blocks.append(_basic(before, maps, stride, shortcut))
            before = maps
        stages[f"stage{number}"] = nn.Sequential(*blocks)
    stages["head"] = _head(before, classes)
    return he_normal(nn.Sequential(stages))


def resnet50(shape: Shape, classes: int, *, depth: int = 50, stem: str = "auto") -> nn.Sequential:
    """Bottleneck residual network: ResNet-50, for ImageNet; of depth 50, 101 or 152.

    Stem "imagenet" is a 7x7 convolution and a 3x3 max-pool, both with stride 2; "small" one 3x3
    convolution with stride 1; "auto" is small if the shorter side is below 64 pixels.
    """
    if depth not in _BOTTLENECKS:
        raise ValueError(f"depth={depth} must be 50, 101 or 152")
    return _imagenet(shape, classes, _BOTTLENECKS[depth], stem, 4)


def resnet18(shape: Shape, classes: int, *, depth: int = 18, stem: str = "auto") -> nn.Sequential:
    """3x3 residual network of 64 to 512 maps: ResNet-18, for ImageNet; of depth 18 or 34.

    `stem` as of resnet50.
    """
    if depth not in _BASIC:
        raise ValueError(f"depth={depth} must be 18 or 34")
    return _imagenet(shape, classes, _BASIC[depth], stem, 1)


def _imagenet(
    shape: Shape, classes: int, counts: tuple[int, ...], stem: str, widening: int
) -> nn.Sequential:
    """Four stages of so many blocks, which widen 64 to 512 maps: bottlenecks by 4, others not."""
    small = choose(stem, ("small", "imagenet"), shape, name="stem") == "small"
    first = _conv_norm(shape[0], 64, 3) if small else _conv_norm(shape[0], 64, 7, 2)
    pool = [] if small else [nn.MaxPool2d(3, stride=2, padding=1)]
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(*first, nn.ReLU(), *pool))
    before = 64
    for number, count in enumerate(counts, start=1):
        narrow = 32 * 2**number
        blocks = []
        for index in range(count):
            stride = 2 if number > 1 and index == 0 else 1
            is_basic = widening == 1
            blocks.append(
                _basic(before, narrow, stride, "B")
                if is_basic
                else _bottleneck(before, narrow, stride)
            )
            before = widening * narrow
        stages[f"stage{number}"] = nn.Sequential(*blocks)
    stages["head"] = _head(before, classes)
    return he_normal(nn.Sequential(stages))


def _bottleneck(before: int, narrow: int, stride: int) -> Block:
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (option B)."""
    maps = 4 * narrow
    residual = nn.Sequential(
        *_conv_norm(before, narrow, 1),
        nn.ReLU(),
        *_conv_norm(narrow, narrow, 3, stride),
        nn.ReLU(),
        *_conv_norm(narrow, maps, 1),
    )
    if stride == 1 and before == maps:
        return Block(residual, nn.Identity())
    return Block(residual, nn.Sequential(*_conv_norm(before, maps, 1, stride)))


def _basic(before: int, maps: int, stride: int, shortcut: str) -> Block:
    """Two 3x3 convolutions beside a shortcut."""
    residual = nn.Sequential(
        *_conv_norm(before, maps, 3, stride), nn.ReLU(), *_conv_norm(maps, maps, 3)
    )
    if stride == 1 and before == maps:
        return Block(residual, nn.Identity())
    if shortcut == "B":
        return Block(residual, nn.Sequential(*_conv_norm(before, maps, 1, stride)))
    added = maps - before
    # A pool of 1x1 takes every stride-th pixel; the padding is of C, half before and half after.
    subsample = nn.MaxPool2d(1, stride=stride)
    padding = (0, 0, 0, 0, added // 2, added - added // 2)
    return Block(residual, nn.Sequential(subsample, nn.ConstantPad3d(padding, 0.0)))


def _conv_norm(before: int, maps: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """A convolution that keeps H and W (over the stride), and batch-norm."""
    conv = nn.Conv2d(before, maps, kernel, stride=stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(maps)


def _head(maps: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, classes))
