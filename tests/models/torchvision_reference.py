"""torchvision's networks, written again from their architecture and the names in their files.

Its own code is not needed: each network here has the layers, names and forward that the public
state dicts are made for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, before: int, maps: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, maps, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps)
        self.downsample = shortcut(before, maps, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which has the stride) and 1x1 convolutions."""

    def __init__(self, before: int, narrow: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, 4 * narrow, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * narrow)
        self.downsample = shortcut(before, 4 * narrow, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def shortcut(before: int, maps: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and before == maps:
        return None
    return nn.Sequential(nn.Conv2d(before, maps, 1, stride, bias=False), nn.BatchNorm2d(maps))


class ResNet(nn.Module):
    """Stem, four stages, one linear layer."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], counts: tuple[int, ...], classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before, widening = 64, 4 if block is Bottleneck else 1
        for stage, count in enumerate(counts):
            maps, blocks = 64 << stage, []
            for index in range(count):
                blocks.append(block(before, maps, 2 if stage and not index else 1))
                before = maps * widening
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


class Convolutional(nn.Module):
    """VGG-16 (with or without batch-norm) or AlexNet: features, then a classifier."""

    def __init__(self, features: list[nn.Module], classifier: list[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.features(x).flatten(1))
        return scores


def vgg16(flat: int, classes: int, *, batch_norm: bool) -> Convolutional:
    features: list[nn.Module] = []
    before = 3
    plan = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"
    for word in plan.split():
        if word == "M":
            features.append(nn.MaxPool2d(2, 2))
            continue
        features.append(nn.Conv2d(before, int(word), 3, padding=1))
        features += [nn.BatchNorm2d(int(word))] if batch_norm else []
        features.append(nn.ReLU())
        before = int(word)
    hidden: list[nn.Module] = [nn.Linear(flat, 4096), nn.ReLU(), nn.Dropout()]
    hidden += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, classes)]
    return Convolutional(features, hidden)


def alexnet(flat: int, classes: int) -> Convolutional:
    features: list[nn.Module] = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    features += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    features += [nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()]
    features += [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()]
    features += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)]
    hidden: list[nn.Module] = [nn.Dropout(), nn.Linear(flat, 4096), nn.ReLU()]
    hidden += [nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)]
    return Convolutional(features, hidden)


def conv_norm(before: int, maps: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, maps, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(maps), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Widen, filter, project."""

    def __init__(self, before: int, maps: int, stride: int, widening: int) -> None:
        super().__init__()
        wide = before * widening
        layers = [conv_norm(before, wide, 1, 1)] if widening != 1 else []
        layers.append(conv_norm(wide, wide, 3, stride, groups=wide))
        project = [nn.Conv2d(wide, maps, 1, bias=False), nn.BatchNorm2d(maps)]
        self.conv = nn.Sequential(*layers, *project)
        self.adds = stride == 1 and before == maps

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """Stem, 17 blocks and the last convolution in one sequence; one linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 32, 3, 2)]
        before = 32
        plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
        plan += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        for widening, maps, count, stride in plan:
            for index in range(count):
                layers.append(InvertedResidual(before, maps, 1 if index else stride, widening))
                before = maps
        layers.append(conv_norm(before, 1280, 1, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return scores
