"""MobileNetV2.

M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen, "MobileNetV2: inverted residuals and
linear bottlenecks", CVPR 2018, table 2. A block widens its input t times by a 1x1 convolution,
filters each channel by a 3x3 (depthwise), and projects back by a 1x1 without activation; the input
is added if the shape is kept.

Channel counts are the paper's times the width multiplier, rounded to a multiple of 8 and never
more than a tenth below, as in the authors' code; the last convolution has 1280 maps or more.
Weights are drawn by He's rule.

The paper's network divides H and W by 32. For small images (shorter side below 64 pixels) the
strides of the first convolution and of the second stage become 1, so that it divides by 8 and
32 pixels give 4; `total_stride` says otherwise.

Legend: C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict

from torch import Tensor, nn

from sixfold.models.initialise import he_normal
from sixfold.models.shapes import Shape
from sixfold.models.stem import check_dropout, is_small

_STAGES = (
    # widening t, maps, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Widen, filter, project; plus the input if H, W and the number of maps are kept."""

    def __init__(self, before: int, maps: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = before * widening
        expand = _conv(before, wide, 1) if widening > 1 else []
        self.residual = nn.Sequential(
            *expand,
            *_conv(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, maps, 1, bias=False),
            nn.BatchNorm2d(maps),
        )
        self.adds_input = stride == 1 and before == maps

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, K, H/stride, W/stride)."""
        out: Tensor = self.residual(x)
        return x + out if self.adds_input else out


def mobilenet_v2(
    shape: Shape,
    classes: int,
    *,
    width: float = 1.0,
    dropout: float = 0.2,
    total_stride: int | None = None,
) -> nn.Sequential:
    """17 inverted residual blocks: MobileNetV2 of any width, for ImageNet and CIFAR-10.

    `width` multiplies the maps of every layer; `total_stride` is 32 (the paper's), 16 (first
    convolution with stride 1) or 8 (second stage too; the default below 64 pixels).
    """
    check_dropout(dropout)
    if not 0 < width < float("inf"):
        raise ValueError(f"width={width} must be above 0")
    if total_stride is None:
        total_stride = 8 if is_small(shape) else 32
    if total_stride not in (8, 16, 32):
        raise ValueError(f"total_stride={total_stride} must be 8, 16 or 32")
    before = round_maps(32 * width)
    last = round_maps(1280 * max(1.0, width))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(*_conv(shape[0], before, 3, 2 if total_stride == 32 else 1))
    for number, (widening, maps, count, stride) in enumerate(_STAGES, start=1):
        if number == 2 and total_stride == 8:
            stride = 1
        blocks = []
        for index in range(count):
            after = round_maps(maps * width)
            blocks.append(InvertedResidual(before, after, stride if index == 0 else 1, widening))
            before = after
        layers[f"stage{number}"] = nn.Sequential(*blocks)
    layers["last"] = nn.Sequential(*_conv(before, last, 1))
    layers["head"] = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(last, classes)
    )
    return he_normal(nn.Sequential(layers))


def round_maps(maps: float) -> int:
    """The multiple of 8 nearest to `maps`, at least 8, and not more than a tenth below it."""
    rounded = max(8, int(maps + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * maps else rounded + 8


def _conv(
    before: int, maps: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> list[nn.Module]:
    """A convolution that keeps H and W (over the stride), batch-norm and ReLU6."""
    conv = nn.Conv2d(
        before, maps, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [conv, nn.BatchNorm2d(maps), nn.ReLU6()]
