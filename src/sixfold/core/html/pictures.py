"""The sheet of the most confident mistakes: small PNGs within the report."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.html.axes import percent
from sixfold.core.html.json_lines import label, number
from sixfold.core.html.page import Picture, Pictures

Images = Callable[[NDArray[np.int64]], NDArray[Any]]
"""Test images by index: (n, C, H, W), uint8, or floating point in [0, 1]."""

MAX_SIDE = 224  # larger images are made smaller, so that the file stays small
SHOWN_SIDE = 104  # at most how large an image is shown, in CSS pixels
LARGEST_PIXELATED = 48
"""Images up to this size are enlarged by a whole factor, so that pixels are equal squares."""

MAX_MISTAKES = 32


def mistakes(
    result: dict[str, Any], names: Sequence[str], images: Images | None, notes: list[str]
) -> Pictures | None:
    """The entries of `worst` in a result, with their pictures where `images` gives them.

    `notes` gets why pictures are missing.
    """
    worst = result.get("worst")
    entries = [one for one in worst if isinstance(one, dict)] if isinstance(worst, list) else []
    entries = entries[:MAX_MISTAKES]
    pictures = _pictures(entries, names, images, notes) if images and entries else {}
    found = []
    for entry in entries:
        true, predicted = (_class_name(entry.get(key), names) for key in ("label", "predicted"))
        confidence = number(entry.get("confidence"))
        lines = [
            (f"{true} → {predicted}", "who"),
            (percent(confidence) if math.isfinite(confidence) else "", "sub"),
            (label(entry.get("name")).replace("/", "/\u200b"), "from"),
        ]
        shown = pictures.get(_index(entry))
        found.append(([shown] if shown else [], [line for line in lines if line[0]]))
    return Pictures(entries=found) if found else None


def _index(entry: dict[str, Any]) -> int:
    """The image's index; -1 if the entry gives none."""
    value = number(entry.get("index"))
    return int(value) if math.isfinite(value) and 0 <= value < 2**53 else -1


def _class_name(value: Any, names: Sequence[str]) -> str:
    """A class by name, whether it is given by name or by number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return label(value)


def _pictures(
    entries: Sequence[dict[str, Any]], names: Sequence[str], images: Images, notes: list[str]
) -> dict[int, Picture]:
    known = {index: entry for entry in entries if (index := _index(entry)) >= 0}
    try:
        pixels = np.asarray(images(np.asarray(list(known), np.int64)))
        return {
            index: picture(
                image,
                f"{label(entry.get('name'))}: {_class_name(entry.get('label'), names)} taken for "
                f"{_class_name(entry.get('predicted'), names)}",
            )
            for (index, entry), image in zip(known.items(), pixels, strict=True)
        }
    except Exception as error:  # The data may be gone or changed; the report stands without it.
        notes.append(f"The misclassified images could not be read: {error}.")
        return {}


def picture(image: NDArray[Any], alt: str) -> Picture:
    """A PNG of one image (C, H, W), uint8 or floating point in [0, 1], and the size to show it at.

    One or two channels are shown as gray, three or more as red, green and blue.

    >>> made = picture(np.zeros((1, 28, 28), np.uint8), "nothing")
    >>> made.width, made.height, made.small
    (84, 84, True)
    """
    from PIL import Image

    if image.ndim != 3 or not image.size:
        raise ValueError(f"an image has shape (C, H, W), not {image.shape}")
    if image.dtype != np.uint8:
        image = np.round(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    if image.shape[0] >= 3:
        made = Image.fromarray(np.ascontiguousarray(image[:3].transpose(1, 2, 0)), "RGB")
    else:
        made = Image.fromarray(np.ascontiguousarray(image[0]), "L")
    made.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    longest = max(made.size)
    pixelated = longest <= LARGEST_PIXELATED
    factor = SHOWN_SIDE // longest if pixelated else SHOWN_SIDE / longest
    width, height = (max(1, round(side * factor)) for side in made.size)
    return Picture(uri=png(made), alt=alt, width=width, height=height, small=pixelated)


def stretched(images: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Images (n, C, H, W) of any numbers, each from its darkest at 0 to its brightest at 1."""
    low, high = (found((1, 2, 3), keepdims=True) for found in (images.min, images.max))
    shown: NDArray[np.floating[Any]] = (images - low) / np.where(high > low, high - low, 1)
    return shown


def png(image: Any) -> str:
    """The data URI of a `PIL.Image` as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
