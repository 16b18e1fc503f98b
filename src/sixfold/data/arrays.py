"""Arrays and tensors of images as pixels: which dimension has the channels, and what is exact.

Pixels are kept as 8-bit integers where all images of a set have such: whole numbers from 0 to 255,
or floating-point numbers from 0 to 1 each of which is a multiple of 1/255 up to rounding, as
`ToTensor` makes them. Otherwise they are kept as the float32 numbers that they are.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.config import ANY_RANGE
from sixfold.core.errors import UserError
from sixfold.data.images import Pixels

USUAL_CHANNELS = (1, 3)

SCALES = {"0-1": 255, "0-255": 1}  # by what pixels of each range are multiplied
AS_THEY_ARE = 0
REMEDY = "give images like those of the training, or train with pixel_range='any'"


def channel_dim(shape: tuple[int, ...], *, first: bool) -> int:
    """Which of the last three dims of images has the channels: 0 or 2 of (C, H, W) or (H, W, C).

    Args:
        shape: the last three dims.
        first: what counts where both could be it: torch writes the channels first, NumPy last.

    >>> channel_dim((3, 32, 32), first=False), channel_dim((32, 32, 3), first=True)
    (0, 2)
    """
    may = [dim for dim in (0, 2) if shape[dim] in USUAL_CHANNELS]
    if len(may) == 2:
        return 0 if first else 2
    if may:
        return may[0]
    dim = 0 if shape[0] < shape[2] else 2
    others = [size for place, size in enumerate(shape) if place != dim]
    if shape[dim] >= min(others):
        raise UserError(
            f"images of shape {'x'.join(map(str, shape))}: none of the dims is that of the "
            "channels (1 or 3, or fewer than rows and columns): give (N, C, H, W) or (N, H, W, C)"
        )
    return dim


def as_array(images: Any) -> tuple[NDArray[Any], bool]:
    """Numbers of an array, a tensor or nested lists; and whether it is a tensor of torch's."""
    if hasattr(images, "detach"):
        plain = images.detach().cpu()
        if str(plain.dtype) == "torch.bfloat16":
            plain = plain.float()
        return plain.numpy(), True
    if isinstance(images, np.ma.MaskedArray) and np.ma.is_masked(images):
        raise UserError("images or labels are masked in places: give them values, as by .filled(0)")
    try:
        return np.asarray(images), False
    except ValueError as error:  # lists of several lengths
        raise UserError(f"images or labels are no numbers of one shape ({error})") from error


def channels_first(array: NDArray[Any], *, is_tensor: bool) -> NDArray[Any]:
    """One image, or a batch of them, with its channels before rows and columns.

    Args:
        array: (H, W), (C, H, W) or (H, W, C).
        is_tensor: whether torch made it.
    """
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise UserError(f"an image of {array.ndim} dims: expected (H, W), (C, H, W) or (H, W, C)")
    moved = channel_dim(array.shape, first=is_tensor) == 2
    return np.moveaxis(array, 2, 0) if moved else array


def batch_channels_first(array: NDArray[Any], *, is_tensor: bool) -> NDArray[Any]:
    """Images (N, H, W), (N, C, H, W) or (N, H, W, C) as (N, C, H, W)."""
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        raise UserError(
            f"images of {array.ndim} dims {array.shape}: expected (N, C, H, W), (N, H, W, C) or "
            "(N, H, W)"
        )
    moved = channel_dim(array.shape[1:], first=is_tensor) == 2
    return np.moveaxis(array, 3, 1) if moved else array


def range_of(array: NDArray[Any]) -> str:
    """What floating-point numbers of a whole set are: "0-1" or "0-255"; empty of others."""
    if array.dtype.kind != "f" or array.size == 0:
        return ""
    return "0-255" if array.max() > 1 else "0-1"


class InexactError(UserError):
    """Numbers that are no 8-bit pixels: to be kept as they are, with all others of their set."""


class PixelReader:
    """Takes arrays of one set, all in the same units, to 8-bit pixels without loss; or as they are.

    Args:
        pixel_range: what floating-point numbers are, one of `PIXEL_RANGES`; empty: as each says.

    Attributes:
        scale: 255 if the numbers are from 0 to 1, 1 if they are from 0 to 255, `AS_THEY_ARE` if
            they are kept as float32; None until known.
    """

    def __init__(self, pixel_range: str = "") -> None:
        self.scale = AS_THEY_ARE if pixel_range == ANY_RANGE else None
        self._float_scale = SCALES.get(pixel_range)

    def read(self, array: NDArray[Any]) -> Pixels:
        """Pixels, C-contiguous.

        Raises:
            InexactError: if they would lose as 8-bit pixels.
            UserError: if they are no numbers, or in other units than those before.
        """
        if array.dtype.kind not in "biuf":
            raise UserError(f"images of {array.dtype}: expected numbers")
        if self.scale == AS_THEY_ARE:
            return _as_they_are(array)
        if array.dtype == np.uint8:
            scale, pixels = 1, array
        elif array.dtype == np.bool_:
            scale, pixels = 255, array.astype(np.uint8) * np.uint8(255)
        elif array.dtype.kind in "iu":
            scale, pixels = 1, _checked(array, 1)
        else:
            is_unit = bool(array.size == 0 or array.max() <= 1)
            scale = self._float_scale or (255 if is_unit else 1)
            # A black image says nothing of its units.
            if self.scale is not None and is_unit and not array.any():
                scale = self.scale
            pixels = _checked(array, scale)
        if self.scale not in (None, scale):
            raise UserError(
                "some images have pixels from 0 to 1 and others from 0 to 255: give all in the "
                "same units, or pixel_range='any' to keep them as the numbers that they are"
            )
        self.scale = scale
        return np.ascontiguousarray(pixels)


def _as_they_are(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(out).all():
        raise UserError("images hold NaN or infinite pixels")
    return out


def _checked(array: NDArray[Any], scale: int) -> NDArray[np.uint8]:
    """Numbers times `scale` as 8 bits, refused if they are no whole numbers from 0 to 255."""
    if array.size == 0:
        return array.astype(np.uint8)
    low, high = array.min(), array.max()
    if scale == SCALES["0-1"] and high > 1:
        raise UserError(
            f"pixels from {low:g} to {high:g}: expected 0 to 1, as in the set's first part or the "
            "network's training; pixel_range='0-255' says otherwise"
        )
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        raise UserError("images hold NaN or infinite pixels")
    if low < 0 or high > 255:
        raise InexactError(
            f"pixels from {low:g} to {high:g}: expected 0 to 255, or 0 to 1 in floating point; "
            f"{REMEDY}"
        )
    if array.dtype.kind != "f":
        return array.astype(np.uint8)
    values = array.astype(np.float64) * scale
    whole = np.rint(values)
    slack = 2.0 * scale * float(np.finfo(array.dtype).eps)
    if slack >= 0.5 or (np.abs(values - whole) > slack).any():
        raise InexactError(
            f"pixels of {array.dtype} from {low:g} to {high:g} that are no multiples of 1/{scale}: "
            f"expected 8-bit pixels; {REMEDY}"
        )
    return whole.astype(np.uint8)
