"""Pictures to pixels: decoding and resizing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resize_array(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Bilinear, antialiased resize of one image, as everywhere in Sixfold.

    Args:
        image: (C, H, W).
        side: rows and columns wanted.

    Returns:
        (C, side, side).
    """
    from PIL import Image

    if image.shape[1:] == (side, side):
        return image
    size = (side, side)
    # A channel at a time gives the same bits as the whole picture, and takes any number of them.
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
        for plane in image
    ]
    return np.stack(planes)
