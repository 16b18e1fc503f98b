"""Test-time augmentation: the views of an image over which a network's outputs are averaged."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError, raise_problems

NONE = "none"
FORMS = ("flip", "shift:PIXELS")
EXAMPLE = "flip,shift:1"


class View(NamedTuple):
    """How one view looks at an image: moved by so many pixels, then mirrored left to right."""

    down: int
    right: int
    mirrored: bool


def parse_views(text: Any, shape: Sequence[int] | None = None) -> tuple[View, ...]:
    """Read `--tta`: ``none``, or a list of ``flip`` and ``shift`` or ``shift:PIXELS``.

    Python's own list of these will do, and None or False for ``none``.

    With the `shape` of images, (C, H, W), no view may miss the image altogether.

    Raises:
        UserError: with everything that is wrong.

    >>> parse_views("flip")
    (View(down=0, right=0, mirrored=False), View(down=0, right=0, mirrored=True))
    >>> len(parse_views("flip,shift:1"))
    10
    """
    if text is None or text is False:
        text = NONE
    if isinstance(text, (list, tuple)):
        text = ",".join(map(str, text))
    if not isinstance(text, str):
        raise UserError(f"tta is a {type(text).__name__}: expected text, such as {EXAMPLE!r}")
    words = [word.strip() for word in text.split(",")]
    moves, flips = [(0, 0)], [False]
    if words == [NONE]:
        return (View(0, 0, mirrored=False),)
    problems, seen = [], set[str]()
    for word in words:
        name = word.split(":")[0]
        shift = re.fullmatch(r"shift(?::([1-9]\d{0,3}))?", word)
        if name in seen:
            problems.append(f"--tta {text}: {name} stands there twice")
        elif shift:
            side = int(shift[1] or 1)
            if shape is not None and side >= min(shape[1:]):
                problems.append(
                    f"--tta {word}: would move images of {shape[1]}x{shape[2]} out of sight"
                )
            moves += [(side, 0), (-side, 0), (0, side), (0, -side)]
        elif word == "flip":
            flips = [False, True]
        elif name in ("flip", "shift"):
            problems.append(f"--tta {word}: expected flip, or shift:PIXELS with at least 1 pixel")
        else:
            problems.append(f"--tta {word}: {unknown('view', name, (*FORMS, NONE))}")
        seen.add(name)
    raise_problems(problems)
    return tuple(View(*move, mirrored=flip) for flip in flips for move in moves)


def view_problems(text: str) -> list[str]:
    """What is wrong with the text of `--tta`, one line each."""
    try:
        parse_views(text)
    except UserError as error:
        return list(error.problems)
    return []
