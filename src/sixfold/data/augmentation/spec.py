"""What a row of the registry says of an augmentation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from sixfold.data.augmentation.draws import Floats

Images = NDArray[Any]  # (n, C, H, W), uint8 or float32


class Setting(NamedTuple):
    """A number that is written behind a name, after a colon."""

    name: str
    default: float
    low: float
    high: float
    whole: bool = False  # whether it is an integer


class Mix(NamedTuple):
    """How the images of a shard are mixed with each other's: each with the one before it."""

    share: float  # part of an image, and of its label, that is its own
    box: tuple[int, int, int, int] | None  # top, bottom, left, right of what is pasted; None: blend


Change = Callable[[Images, Floats, tuple[float, ...], NDArray[Any]], Images]
"""Of images that may be overwritten, (n, k) draws, settings, and the mean pixel, (C,)."""

DrawMix = Callable[[int, tuple[int, int], tuple[float, ...]], Mix]
"""Of a key, (H, W) and settings."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One way to augment images.

    Attributes:
        what: one line for users.
        settings: numbers that may follow its name.
        draws: random numbers that it needs for an image, from its settings.
        change: what it does to images; None of a mix, and of what `Augment` does itself.
        mix: how images of a shard are mixed; None if each is changed by itself.
        any_range: whether pixels may be floating-point numbers of any range.
    """

    what: str
    settings: tuple[Setting, ...] = ()
    draws: Callable[[tuple[float, ...]], int] = lambda _: 1
    change: Change | None = None
    mix: DrawMix | None = None
    any_range: bool = True


class Chosen(NamedTuple):
    """An augmentation that was asked for, by name, and its settings."""

    name: str
    settings: tuple[float, ...] = ()
