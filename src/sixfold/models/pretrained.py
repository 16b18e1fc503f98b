"""Weights under torchvision's names, for the zoo's networks of the same architecture.

torchvision writes its networks with layers of other names (`layer1.0.conv1` for
`stage1.0.residual.0`). Shapes and computation are the same, so its public state dicts need only
be renamed.
"""

import re
from collections.abc import Callable, Collection, Mapping

COUNTER = ".num_batches_tracked"
"""The end of a buffer's name that files older than PyTorch 0.4.1 have not."""

_MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
"""Blocks in each stage; torchvision numbers all of them through."""


def _moved(name: str, moves: Mapping[str, str]) -> str | None:
    """A name whose layer is another one; None if that is none of these."""
    layer, _, tensor = name.rpartition(".")
    return f"{moves[layer]}.{tensor}" if layer in moves else None


def _resnet(name: str) -> str | None:
    if found := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)([123])\.(\w+)", name):
        stage, block, kind, number, tensor = found.groups()
        place = 3 * (int(number) - 1) + (kind == "bn")  # a ReLU stands behind each norm
        return f"stage{stage}.{block}.residual.{place}.{tensor}"
    if found := re.fullmatch(r"layer(\d)\.(\d+)\.downsample\.([01]\.\w+)", name):
        return f"stage{found[1]}.{found[2]}.shortcut.{found[3]}"
    return _moved(name, {"conv1": "stem.0", "bn1": "stem.1", "fc": "head.2"})


def _vgg(name: str) -> str | None:
    if name.startswith("features."):
        return name
    return _moved(name, {f"classifier.{n}": f"classifier.{n + 1}" for n in (0, 3, 6)})


def _alexnet(name: str) -> str | None:
    if name.startswith("features."):
        return name
    return _moved(name, {f"classifier.{n}": f"classifier.{n + 1}" for n in (1, 4, 6)})


def _mobilenet(name: str) -> str | None:
    if found := re.fullmatch(r"features\.(\d+)\.conv\.(\d)(?:\.(\d))?\.(\w+)", name):
        number, place, within, tensor = found.groups()
        stage, block = _stage_of(int(number))
        if within is not None:  # convolution, norm and ReLU6 together
            at = 3 * int(place) + int(within)
        else:  # the projection and its norm, behind one such group or two
            groups = 1 if stage == 1 else 2
            at = 3 * groups + int(place) - groups
        return f"stage{stage}.{block}.residual.{at}.{tensor}"
    moves = {"features.0.0": "stem.0", "features.0.1": "stem.1"}
    moves |= {"features.18.0": "last.0", "features.18.1": "last.1", "classifier.1": "head.3"}
    return _moved(name, moves)


def _stage_of(number: int) -> tuple[int, int]:
    """Stage, from 1, and block within it, from 0, of a block that is numbered through from 1."""
    left = number - 1
    for stage, count in enumerate(_MOBILENET_BLOCKS, start=1):
        if left < count:
            return stage, left
        left -= count
    return 0, left


_FAMILIES: tuple[Callable[[str], str | None], ...] = (_resnet, _vgg, _alexnet, _mobilenet)


def from_torchvision(given: Collection[str], own: Collection[str]) -> dict[str, str]:
    """The network's name of every tensor that has torchvision's name; empty if they are no such.

    >>> from_torchvision(["conv1.weight", "fc.bias"], ["stem.0.weight", "head.2.bias"])
    {'conv1.weight': 'stem.0.weight', 'fc.bias': 'head.2.bias'}
    """
    wanted = {name for name in own if not name.endswith(COUNTER)}
    for rule in _FAMILIES:
        names = {name: rule(name) for name in given}
        known = {name: mine for name, mine in names.items() if mine is not None}
        found = {mine for mine in known.values() if not mine.endswith(COUNTER)}
        if len(known) == len(names) and found == wanted:
            return known
    return {}
