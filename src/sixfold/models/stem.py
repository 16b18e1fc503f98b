"""The one rule by which networks made for ImageNet adapt to small images."""

from sixfold.models.shapes import Shape

SMALL_SIDE = 64
"""Images whose shorter side has fewer pixels count as small: CIFAR's 32, but not ImageNet's 64."""


def is_small(shape: Shape) -> bool:
    """Whether images of shape (C, H, W) count as small."""
    return min(shape[1:]) < SMALL_SIDE


def choose(value: str, options: tuple[str, str], shape: Shape, *, name: str) -> str:
    """The form of a network: as the argument says or, if that is "auto", as the images ask.

    `options` are the form for small images, and the form for others.
    """
    if value == "auto":
        return options[0] if is_small(shape) else options[1]
    if value not in options:
        raise ValueError(f"{name}={value} must be auto, {options[0]} or {options[1]}")
    return value


def check_dropout(dropout: float) -> None:
    """Raise unless a probability of dropping is in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be at least 0 and below 1")
