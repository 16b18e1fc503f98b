"""What a file is that is no picture that can be read: told by its first bytes, with the remedy."""

import re

_CONVERT = "convert it to PNG or JPEG"
_RENDER = "render it to PNG"
_FRAMES = "take pictures out of it, with ffmpeg for example"
_SLICES = "export its slices as PNG"
_RAW = "develop it to PNG, TIFF or JPEG"
_UNPACK = "unpack it first"
OTHER_FORMAT = "expected a picture a file"
_PARQUET = "a table must be Parquet (df.write.parquet, df.to_parquet)"

_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xff\x0a", "a JPEG XL picture", _CONVERT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture", _CONVERT),
    (0, b"II\xbc\x01", "a JPEG XR picture", _CONVERT),
    (0, b"BPG\xfb", "a BPG picture", _CONVERT),
    (0, b"FLIF", "a FLIF picture", _CONVERT),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture", _CONVERT),
    (0, b"#?RADIANCE", "a Radiance HDR picture", _CONVERT),
    (0, b"#?RGBE", "a Radiance HDR picture", _CONVERT),
    (0, b"gimp xcf", "a GIMP drawing", "export it as PNG"),
    (0, b"8BPS", "a Photoshop drawing of a kind that cannot be read", "export it as PNG"),
    (0, b"8BPB", "a large Photoshop drawing (PSB)", "export it as PNG"),
    (0, b"AT&TFORM", "a DjVu document", _RENDER),
    (0, b"%PDF", "a PDF document", _RENDER),
    (0, b"%!PS", "a PostScript drawing", _RENDER),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript drawing", _RENDER),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile", _RENDER),
    (40, b" EMF", "a Windows metafile", _RENDER),
    (128, b"DICM", "a DICOM file", _SLICES),
    (344, b"n+1\0", "a NIfTI volume", _SLICES),
    (344, b"ni1\0", "a NIfTI volume", _SLICES),
    (4, b"n+2\0", "a NIfTI volume", _SLICES),
    (0, b"NRRD", "an NRRD volume", _SLICES),
    (0, b"ObjectType = Image", "a MetaImage volume", _SLICES),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)", _RAW),
    (8, b"CR\x02\0", "a camera's raw file (CR2)", _RAW),
    (0, b"IIRO", "a camera's raw file (ORF)", _RAW),
    (0, b"IIRS", "a camera's raw file (ORF)", _RAW),
    (0, b"MMOR", "a camera's raw file (ORF)", _RAW),
    (0, b"IIU\0", "a camera's raw file (RW2)", _RAW),
    (0, b"FOVb", "a camera's raw file (X3F)", _RAW),
    (0, b"\0MRM", "a camera's raw file (MRW)", _RAW),
    (8, b"AVI ", "a video (AVI)", _FRAMES),
    (8, b"WAVE", "a sound (WAV)", OTHER_FORMAT),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", _FRAMES),
    (0, b"\0\0\x01\xba", "a video (MPEG)", _FRAMES),
    (0, b"\0\0\x01\xb3", "a video (MPEG)", _FRAMES),
    (0, b"FLV\x01", "a video (FLV)", _FRAMES),
    (0, b"\x30\x26\xb2\x75", "a video (WMV)", _FRAMES),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip file", _UNPACK),
    (0, b"BZh", "a bzip2 file", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz file", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file", _UNPACK),
    (0, b"LZIP", "an lzip file", _UNPACK),
    (0, b"\x1f\x9d", "a file of `compress`", _UNPACK),
    (0, b"\x93NUMPY", "a NumPy array", OTHER_FORMAT),
    (0, b"\x89HDF\r\n", "an HDF5 file", OTHER_FORMAT),
    (0, b"MATLAB 5.0", "a MATLAB file", OTHER_FORMAT),
    (0, b"PAR1", "a Parquet file", "give it as parquet:PATH"),
    (0, b"PARE", "an encrypted Parquet file", "decrypt it"),
    (0, b"ARROW1", "an Arrow file", _PARQUET),
    (0, b"FEA1", "a Feather file", _PARQUET),
    (0, b"ORC", "an ORC file", _PARQUET),
    (0, b"Obj\x01", "an Avro file", _PARQUET),
    (0, b"SQLite format 3", "a database", OTHER_FORMAT),
    (0, b"version https://git-lfs", "a pointer to a file in Git LFS", "run `git lfs pull`"),
    (0, b"\0\x05\x16\x07", "a companion file of macOS (AppleDouble)", "remove it"),
)

_BRANDS = (
    (b"avif avis", "an AVIF picture that this Pillow cannot read", _CONVERT),
    (b"heic heix heim heis hevc hevx hevm hevs mif1 mif2 msf1 miaf", "a HEIC picture", _CONVERT),
    (b"crx ", "a camera's raw file (CR3)", _RAW),
    (b"qt  ", "a video (QuickTime)", _FRAMES),
)
"""Of files in the ISO base media format, which name themselves at byte 8."""


def describe(data: bytes) -> str:
    """Why bytes that no decoder takes are no image, and what they are where that is known."""
    if (found := recognise(data)) is not None:
        what, remedy = found
        # Pictures are images all right, only none that can be decoded here.
        readable = "picture" not in what or "that" in what
        return f"{what}, {'not an image' if readable else 'which cannot be read'}: {remedy}"
    return "not an image but text" if is_text(data[:4096]) else "not an image"


def recognise(data: bytes) -> tuple[str, str] | None:
    """What a file is that begins like this, and what to do with it; None if it is not known."""
    for offset, signature, what, remedy in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return what, remedy
    if data[4:8] == b"ftyp":
        for brands, what, remedy in _BRANDS:
            if data[8:12] in brands:
                return what, remedy
        return "a video (MP4)", _FRAMES
    text = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "an SVG drawing", _RENDER
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page", "fetch the file again: the download failed"
    if text.startswith(b"<?xml"):
        return "an XML file", OTHER_FORMAT
    return None


def is_text(data: bytes) -> bool:
    """Whether bytes are text in UTF-8, maybe cut through a character at the end."""
    if not data.strip() or re.search(rb"[^\t\n\f\r -~\x80-\xff]", data):
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start > len(data) - 4 and len(data) > 4000
    return True
