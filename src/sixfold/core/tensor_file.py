"""Safetensors files with checksums, verified before anything in them is used.

The header's metadata hold, under ``sixfold.checksums``, a CRC-32 of every tensor (over its name,
dtype, shape and bytes) and one of the other metadata. Any reader of safetensors reads such a file;
files of others are read as they are. A CRC finds damage, not malice, three times as fast as a
cryptographic hash.

Format: eight bytes with the length of the header, the header in JSON (name -> dtype, shape, place
of the bytes), the bytes. https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUMS = "sixfold.checksums"
BLOCK_BYTES = 4 << 20  # what is read at a time

CODES = {
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    "bfloat16": "BF16",
    "complex64": "C64",
    "bool": "BOOL",
}
"""Torch's names of dtypes -> safetensors' codes."""

_LENGTH = struct.Struct("<Q")


class DamagedFileError(SafetensorError):
    """The file is not as it was written."""


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor."""

    dtype: str  # torch's name of it
    shape: tuple[int, ...]
    itemsize: int  # bytes of an element

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor."""
        return prod(self.shape) * self.itemsize

    def seed(self, name: str) -> int:
        """The checksum before the bytes."""
        return _seed(name, CODES[self.dtype], list(self.shape))


@dataclass
class Header:
    """A header that is written before the bytes are known, and again, of equal length, after."""

    entries: dict[str, Entry]  # wide types first, so that every tensor is aligned
    metadata: Mapping[str, str]
    checksums: dict[str, int] = field(default_factory=dict)  # filled in as the bytes are written

    def to_bytes(self) -> bytes:
        """The header with its length."""
        sums = {
            "metadata": f"{_sum_of_metadata(self.metadata):08x}",
            "tensors": {name: f"{self.checksums.get(name, 0):08x}" for name in self.entries},
        }
        packed = json.dumps(sums, separators=(",", ":"))
        header: dict[str, Any] = {"__metadata__": {**self.metadata, CHECKSUMS: packed}}
        start = 0
        for name, entry in self.entries.items():
            stop = start + entry.size_bytes
            header[name] = {
                "dtype": CODES[entry.dtype],
                "shape": list(entry.shape),
                "data_offsets": [start, stop],
            }
            start = stop
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return _LENGTH.pack(len(text)) + text


def in_file_order(name: str, itemsize: int) -> tuple[int, str]:
    """What tensors of a file are sorted by."""
    return (-itemsize, name)


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors on the CPU, of any layout, as the bytes of a file."""
    import torch

    order = sorted(tensors, key=lambda name: in_file_order(name, tensors[name].element_size()))
    entries: dict[str, Entry] = {}
    parts = []
    header = Header(entries, metadata)
    for name in order:
        tensor = tensors[name].detach().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        entries[name] = Entry(dtype, tuple(tensor.shape), tensor.element_size())
        flat = tensor.reshape(-1)
        if flat.stride(0) != 1:  # a single value that was expanded counts as contiguous
            flat = torch.empty(flat.shape, dtype=flat.dtype).copy_(flat)
        data = flat.view(torch.uint8).numpy().data
        header.checksums[name] = zlib.crc32(data, entries[name].seed(name))
        parts.append(data)
    return b"".join([header.to_bytes(), *parts])


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Verify a file and open it; a `SafetensorError` if it is damaged."""
    verify(path)
    with safe_open(path, framework="pt") as file:
        yield file


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file, verified; its tensors are not looked at."""
    with path.open("rb") as file:
        header, _ = read_header(file)
    _checksums(header)
    metadata: dict[str, str] = header.get("__metadata__", {})
    return {name: text for name, text in metadata.items() if name != CHECKSUMS}


def verify(path: Path) -> None:
    """Hold every tensor of a file, and its metadata, against the checksums, where it has any."""
    with path.open("rb") as file:
        header, start = read_header(file)
        sums = _checksums(header)
        if sums is None:
            return
        names = header.keys() - {"__metadata__"}
        if names != sums.keys():
            odd = min(names ^ sums.keys())
            raise DamagedFileError(f"tensor {odd!r} is in its list of checksums or in it, not both")
        for name in names:
            if f"{_sum_of_tensor(file, start, name, header[name]):08x}" != sums[name]:
                raise DamagedFileError(f"the checksum of tensor {name!r} does not fit its content")


def read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors' bytes begin; a `SafetensorError` if there is none."""
    (length,) = _LENGTH.unpack(read_exactly(file, _LENGTH.size))
    if length > os.fstat(file.fileno()).st_size - _LENGTH.size:
        raise DamagedFileError("its header is no safetensors header, or cut short")
    try:
        header = json.loads(read_exactly(file, length))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"its header is no JSON ({error})") from None
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise DamagedFileError("its header is no safetensors header")
    return header, _LENGTH.size + length


def _checksums(header: Mapping[str, Any]) -> dict[str, str] | None:
    """The tensors' checksums, after that of the metadata was verified; None if there are none."""
    metadata = header.get("__metadata__", {})
    if CHECKSUMS not in metadata:
        return None
    others = {name: text for name, text in metadata.items() if name != CHECKSUMS}
    try:
        sums = json.loads(metadata[CHECKSUMS])
        expected, tensors = sums["metadata"], sums["tensors"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DamagedFileError("its list of checksums cannot be read") from None
    if not isinstance(tensors, dict) or expected != f"{_sum_of_metadata(others):08x}":
        raise DamagedFileError("the checksum of its metadata does not fit their content")
    return tensors


def _sum_of_metadata(metadata: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(dict(metadata), sort_keys=True).encode())


def _seed(name: str, code: Any, shape: Any) -> int:
    return zlib.crc32(json.dumps([name, code, shape]).encode())


def _sum_of_tensor(file: BinaryIO, start: int, name: str, entry: Any) -> int:
    try:
        first, last = entry["data_offsets"]
        found = _seed(name, entry["dtype"], entry["shape"])
        if not 0 <= first <= last <= os.fstat(file.fileno()).st_size - start:
            raise DamagedFileError("it is cut short")
    except (TypeError, KeyError, ValueError):
        raise DamagedFileError(f"its header makes no sense at tensor {name!r}") from None
    file.seek(start + first)
    for at in range(first, last, BLOCK_BYTES):
        found = zlib.crc32(read_exactly(file, min(BLOCK_BYTES, last - at)), found)
    return found


def read_exactly(file: BinaryIO, count: int) -> bytes:
    """So many bytes of a file; a `DamagedFileError` if it ends before."""
    data = file.read(count)
    if len(data) != count:
        raise DamagedFileError("it is cut short")
    return data
