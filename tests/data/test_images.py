import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sixfold.data.images import (
    BadImageError,
    check_head,
    clip,
    decode,
    displayed_size,
    open_picture,
    quiet_decoder,
    resize_array,
)

Maker = Callable[..., Image.Image]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image, kind: str = "PNG", **options: Any) -> NDArray[np.uint8]:
    with quiet_decoder():
        return decode(open_picture(encoded(image, kind, **options)))


def test_grey_and_colour_keep_their_channels(picture: Maker) -> None:
    for mode, channels in (("L", 1), ("RGB", 3)):
        image = picture(4, 7, mode)
        found = pixels(image)
        assert found.shape == (channels, 4, 7)
        assert (found.transpose(1, 2, 0).squeeze() == np.asarray(image)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG"])
def test_usual_formats_are_read(picture: Maker, kind: str) -> None:
    assert pixels(picture(16, 16), kind).shape == (3, 16, 16)


def test_palettes_become_colour(picture: Maker) -> None:
    image = picture(6, 6).quantize(16)
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert (pixels(image) == expected).all()


def test_transparent_pixels_are_white(picture: Maker) -> None:
    image = picture(5, 5, "RGBA")
    image.putalpha(0)
    image.putpixel((2, 3), (10, 20, 30, 255))
    found = pixels(image)
    assert found[:, 3, 2].tolist() == [10, 20, 30]
    found[:, 3, 2] = 255
    assert (found == 255).all()
    half = Image.new("LA", (3, 3), (0, 128))
    assert pixels(half).tolist() == [[[127] * 3] * 3]


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 200, 0, 0])
    image.putpixel((0, 0), 0)
    found = pixels(image, transparency=0)
    assert found[:, 0, 0].tolist() == [255, 255, 255]
    assert found[:, 1, 1].tolist() == [200, 0, 0]


def test_printers_colours_and_bits_are_converted(picture: Maker) -> None:
    assert pixels(picture(8, 8, "CMYK"), "TIFF").shape == (3, 8, 8)
    bits = Image.new("1", (3, 2), 0)
    bits.putpixel((1, 1), 1)
    assert pixels(bits).tolist() == [[[0, 0, 0], [0, 255, 0]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    levels = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    found = pixels(Image.fromarray(levels), kind)
    assert found.tolist() == [[[0, 0, 1, 128, 255]]]


def test_32_bit_grey_is_taken_only_in_a_known_range() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert pixels(unit, "TIFF").tolist() == [[[0, 128, 255]]]
    for wild in (np.array([[0.0, 7.5]], np.float32), np.array([[-4, 90000]], np.int32)):
        with pytest.raises(BadImageError, match="grey levels from"):
            pixels(Image.fromarray(wild), "TIFF")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_cameras_orientation_is_obeyed(picture: Maker, orientation: int) -> None:
    from PIL import ImageOps

    image = picture(8, 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    found = open_picture(data)
    assert (decode(found).transpose(1, 2, 0) == expected).all()
    assert displayed_size(open_picture(encoded(image, "JPEG", exif=exif))) == expected.shape[:2]


def test_of_an_animation_the_first_picture_counts(picture: Maker) -> None:
    first, second = picture(4, 4, "L", 1), picture(4, 4, "L", 2)
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    found = decode(open_picture(data))
    assert (found[0] == np.asarray(first)).all()


def bomb() -> bytes:
    """A PNG header that claims a picture of 60,000 x 60,000."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"x")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero bytes"),
        (b"hello, I am a text", "not an image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (bomb(), "more than"),
    ],
)
def test_what_is_no_image_is_bad(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason), quiet_decoder():
        decode(open_picture(data))


@pytest.mark.parametrize("suffix", ["ico", "psd", "dds", "tga", "pcx", "sgi", "qoi"])
def test_what_pillow_can_read_is_read(picture: Maker, suffix: str) -> None:
    image = picture(32, 32)
    if suffix == "psd":  # which Pillow cannot write
        header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 32, 32, 8, 3) + bytes(12) + bytes(2)
        data = header + np.asarray(image).transpose(2, 0, 1).tobytes()
    else:
        data = encoded(image, suffix.upper())
    found = decode(open_picture(data))
    assert (found == np.asarray(image).transpose(2, 0, 1)).all()
    check_head(data[: 2**14])


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture, which cannot be read: convert"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "raw file"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video .MP4., not an image: take pictures out"),
        (b"\xff\x0a\xfa\x7f\x01", "JPEG XL"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.4\n", "PDF"),
        (bytes(128) + b"DICM" + bytes(100), "DICOM"),
        (struct.pack("<i", 348) + bytes(340) + b"n+1\0", "NIfTI"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "raw file .CR2."),
        (b"<!DOCTYPE html><html>no such file</html>", "a web page, not an image: fetch"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"\x93NUMPY\1\0", "NumPy"),
        (b"\x1f\x8b\x08\0", "a gzip file, not an image: unpack it first"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(data: bytes, name: str) -> None:
    with pytest.raises(BadImageError, match=name):
        open_picture(data)


def test_of_a_cameras_raw_file_no_thumbnail_is_taken(picture: Maker) -> None:
    thumbnail = encoded(picture(16, 16), "TIFF", tiffinfo={0xC612: b"\1\4\0\0"})  # DNG's version
    with pytest.raises(BadImageError, match="a camera's raw file, not an image: develop it"):
        open_picture(thumbnail)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_a_truncated_image_is_bad(picture: Maker, kind: str) -> None:
    data = encoded(picture(40, 40), kind)
    with pytest.raises(BadImageError), quiet_decoder():
        decode(open_picture(data[: len(data) // 2]))


def test_damage_anywhere_is_an_image_or_a_bad_one(picture: Maker) -> None:
    rng = np.random.default_rng(0)
    reasons = []
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        data = encoded(picture(20, 20), kind)
        for _ in range(60):
            hurt = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                hurt[place] = rng.integers(0, 256)
            with quiet_decoder():
                try:
                    found = decode(open_picture(bytes(hurt)))
                except BadImageError as error:
                    reasons.append(error.reason)
                    continue
            assert found.dtype == np.uint8
            assert found.shape[0] in (1, 3)
    assert not any("\n" in reason for reason in reasons)


def test_resizing_is_the_same_for_pictures_and_arrays(picture: Maker) -> None:
    image = picture(20, 31)
    plain = decode(open_picture(encoded(image)))
    expected = np.asarray(image.resize((7, 7), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert (decode(open_picture(encoded(image)), resize=7) == expected).all()
    assert (resize_array(plain, 7) == expected).all()


def test_boxes_are_clipped_to_the_picture(picture: Maker) -> None:
    image = picture(10, 12, "L")
    found = decode(open_picture(encoded(image)), box=(-3, 2, 5, 99))
    assert (found[0] == np.asarray(image)[2:10, 0:5]).all()
    for box in ((5, 5, 5, 9), (12, 0, 20, 5), (6, 3, 2, 8)):
        with pytest.raises(BadImageError, match="is empty in a picture of 12x10"):
            clip(box, (12, 10))
