"""Pictures to pixels: decoding, conversion and resizing of one image.

Converted as one would expect: palettes to RGB, CMYK and other colour spaces to RGB, 1-bit and
16-bit grey to 8 bits (scaled, not clipped); transparent pixels are laid over white, as a page
would show them; a camera's orientation tag is obeyed; of an animation the first picture counts.
What cannot be decoded is a `BadImageError`, whatever a hostile file makes the decoder raise.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sixfold.data.signatures import describe

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[Any]  # One image, (C, H, W): 8-bit pixels, or float32 numbers of any range
Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge of a part of a picture, in pixels."""

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF"),
    *("ICO", "CUR", "ICNS", "PSD", "DDS", "QOI", "PCX", "DCX", "SGI", "SUN", "TGA", "XBM", "XPM"),
    *("BLP", "DIB", "FITS", "FLI", "FTEX", "GBR", "MCIDAS", "MSP", "PCD", "PIXAR", "XVTHUMB"),
)
"""What is tried, where the file begins like it. Pillow knows more, but that runs other programs
(EPS), or has no signature by which to tell it from garbage."""

_PLAIN = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"))
"""Beginnings that no other format's files have."""

ORIENTATION_TAG = 0x0112
SCALED_AT_ONCE = 2**16  # Numbers: their copies in double precision stay in the cache
DNG_VERSION_TAG, SUBFILE_TYPE_TAG, SUB_IFDS_TAG = 0xC612, 0x00FE, 0x014A


class BadImageError(Exception):
    """An image that cannot be used, with the reason; `name` if it is not the record's own."""

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.name = name


@contextmanager
def quiet_decoder() -> Iterator[None]:
    """Within it, Pillow's warnings are not shown, and pictures too large for it are errors."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def open_picture(data: bytes) -> Image:
    """Read the header of an encoded picture."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise BadImageError("zero bytes")
    formats = _accepting(data)
    if not formats:
        raise BadImageError(describe(data))
    try:
        picture = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise BadImageError(describe(data)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except Exception as error:
        raise BadImageError(_reason(error)) from None
    if picture.format == "TIFF" and _is_raw(picture, data):
        raise BadImageError("a camera's raw file, not an image: develop it to PNG, TIFF or JPEG")
    return picture


def check_head(head: bytes) -> None:
    """Refuse what no decoder would take, by its first bytes (thousands if there are so many)."""
    if not _accepting(head):
        raise BadImageError(describe(head))


@cache
def _formats() -> tuple[tuple[str, Callable[[bytes], object]], ...]:
    """Formats that this Pillow can read, each with the test of a file's first bytes."""
    from PIL import Image

    Image.init()
    # Without a test of their own Pillow would try these on any file.
    tests: dict[str, Callable[[bytes], object]] = {
        "TGA": _begins_like_tga,
        "PCD": lambda data: data[2048:2052] == b"PCD_",
    }
    known = [name for name in FORMATS if name in Image.OPEN]
    return tuple((n, test) for n in known if (test := tests.get(n) or Image.OPEN[n][1]))


def _accepting(data: bytes) -> list[str]:
    """Formats that a file's first bytes speak for."""
    for start, name in _PLAIN:  # most files; to try every test takes as long as a small picture
        if data.startswith(start):
            return [name]
    found = []
    for name, test in _formats():
        try:
            accepted = test(data)
        except (SyntaxError, IndexError, TypeError, struct.error):  # as Pillow does
            continue
        if accepted and not isinstance(accepted, str):  # a text says why it cannot be read here
            found.append(name)
    return found


def _begins_like_tga(data: bytes) -> bool:
    """Whether the header, which has no signature, holds nothing but what a TGA's may."""
    return (
        len(data) > 18
        and data[1] in (0, 1)
        and data[2] in (1, 2, 3, 9, 10, 11)
        and data[16] in (8, 16, 24, 32)
        and data[17] & 0xC0 == 0
        and (data[1] == 1) == (data[2] in (1, 9))
        and 0 not in (data[12] | data[13], data[14] | data[15])
    )


def _is_raw(picture: Image, data: bytes) -> bool:
    """Whether a TIFF is a camera's raw file, whose first picture is but a thumbnail."""
    tags = getattr(picture, "tag_v2", {})
    reduced = tags.get(SUBFILE_TYPE_TAG, 0) == 1 and SUB_IFDS_TAG in tags
    return data[8:10] == b"CR" or DNG_VERSION_TAG in tags or reduced


def _reason(error: Exception) -> str:
    """One line for whatever a decoder raised."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def displayed_size(picture: Image) -> tuple[int, int]:
    """Rows and columns after the orientation tag is obeyed, from the header alone."""
    columns, rows = picture.size
    return (columns, rows) if _orientation(picture) >= 5 else (rows, columns)


def decode(
    picture: Image, *, box: Box | None = None, gray: bool = False, resize: int | None = None
) -> Pixels:
    """Pixels of a picture: (1, H, W) if it is or shall be grey, else (3, H, W)."""
    return finish(upright(picture), box=box, gray=gray, resize=resize)


def finish(plain: Image, *, box: Box | None, gray: bool, resize: int | None) -> Pixels:
    """Crop, grey and resize a picture of mode L or RGB. Arguments as for `decode`."""
    from PIL import Image

    if gray and plain.mode != "L":
        plain = plain.convert("L")
    if box is not None:
        plain = plain.crop(clip(box, plain.size))
    if resize is not None and plain.size != (resize, resize):
        plain = plain.resize((resize, resize), Image.Resampling.BILINEAR)
    array = np.asarray(plain)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def clip(box: Box, size: tuple[int, int]) -> Box:
    """The part of a box that lies inside a picture of so many columns and rows."""
    left, top, right, bottom = box
    inside = (max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1]))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise BadImageError(
            f"box {left},{top} to {right},{bottom} is empty in a picture of {size[0]}x{size[1]}"
        )
    return inside


def upright(picture: Image) -> Image:
    """Decode a picture to mode L or RGB, turned as its orientation tag says."""
    from PIL import Image

    try:
        picture.load()
        plain = _to_8_bits(picture)
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(_reason(error)) from None
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(_orientation(picture))
    return plain if turn is None else plain.transpose(turn)


def _orientation(picture: Image) -> int:
    """1 (upright) to 8, as the EXIF standard numbers them."""
    # Looking for the tag costs more than decoding a small picture, and most have no EXIF at all.
    if "exif" not in picture.info and picture.format != "TIFF":
        return 1
    try:
        return int(picture.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a broken tag is no reason to do without the picture
        return 1


def _to_8_bits(picture: Image) -> Image:
    from PIL import Image

    mode = picture.mode
    clear = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    if mode in ("L", "RGB") and not clear:
        return picture
    if mode.startswith("I") or mode == "F":
        # 16-bit grey levels, or floating-point ones from 0 to 1.
        top = 1.0 if mode == "F" else 65535.0
        return Image.fromarray(scaled(np.asarray(picture), top, "grey levels"))
    if clear:
        over = picture.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        flat = Image.alpha_composite(white, over).convert("RGB")
        return flat.convert("L") if mode in ("1", "L", "LA", "La") else flat
    return picture.convert("L" if mode == "1" else "RGB")


def scaled(
    values: NDArray[Any], top: float, what: str = "values", *, over: float = 0.0, hint: str = ""
) -> NDArray[np.uint8]:
    """Numbers from 0 to `top` as 0 to 255, rounded; those up to `over` outside are cut off."""
    if odd := values.size - int(np.count_nonzero(np.isfinite(values))):
        raise BadImageError(f"{odd} of {values.size} {what} are NaN or infinite")
    low, high = values.min(), values.max()
    if not (low >= -over and high <= top + over):
        raise BadImageError(f"{what} from {low:g} to {high:g}: expected 0 to {top:g}{hint}")
    found = np.empty(values.shape, np.uint8)
    flat, out = values.reshape(-1), found.reshape(-1)
    for start in range(0, flat.size, SCALED_AT_ONCE):
        block = slice(start, start + SCALED_AT_ONCE)
        wide = np.clip(flat[block].astype(np.float64), 0.0, top)
        out[block] = np.floor(wide * (255 / top) + 0.5)
    return found


def resize_array(image: Pixels, side: int) -> Pixels:
    """Bilinear, antialiased resize of one image (C, H, W), as `decode` does it."""
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
