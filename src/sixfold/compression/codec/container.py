"""The file `model.sixz`: a network's architecture and its tensors, compressed and checked.

All numbers are little-endian; varints are 7-bit groups, lowest first.

    8   89 53 49 58 5A 0D 0A 1A ("SIXZ" between bytes that damaged transfers alter)
    2   version of the format: 1
    8   length of the whole file, in bytes
    4   length of the header
    4   number of tensors
    ..  header: a JSON object, deflated (zlib); {"card": the fields of ModelCard}
    ..  the tensors, one behind the other, in the order of the state dict:
            length of the name (varint), name (UTF-8), dtype (1 byte, number in `DTYPES`),
            number of dims (1 byte), each dim (varint), length of the body (varint), body
            (`sixfold.compression.codec.tensors`)
    16  BLAKE2b-128 of everything before

A reader checks the length first, then the digest, then every number on its way; nothing is
allocated by a number that has not been held against the bytes that are there, and no tensor is
unfolded before names, dtypes and shapes were found to be those of the architecture.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sixfold.compression.codec.tensors import DTYPES, Parts, pack_tensor, unpack_tensor
from sixfold.compression.codec.wire import DamagedError, Reader, varint
from sixfold.core.errors import UserError

MAGIC = b"\x89SIXZ\r\n\x1a"
VERSION = 1
SUFFIX = ".sixz"
_FIXED = struct.Struct("<8sHQII")
_DIGEST_BYTES = 16
_MOST_HEADER = 1 << 20
_MOST_NAME = 4096
_MOST_DIMS = 8
_MOST_DIM = 1 << 40
_MOST_RATIO = 1 << 14
_ALWAYS_ALLOWED_BYTES = 1 << 26
"""A file may unfold to this much, plus `_MOST_RATIO` times its size: a real network, pruned to one
weight in a thousand and coded by a tenth of a bit each, stays far below."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A tensor as it lies in the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    body: memoryview


@dataclass(frozen=True, kw_only=True)
class Container:
    """A file that was read and found whole."""

    header: dict[str, Any]  # the JSON object
    records: tuple[Record, ...]  # the tensors, in order
    size_bytes: int


def to_bytes(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], coder: str
) -> tuple[bytes, dict[str, Parts]]:
    """A whole file, and what the bytes of each tensor are spent on."""
    parts: dict[str, Parts] = {}
    records = []
    for name, tensor in tensors.items():
        body, parts[name] = pack_tensor(tensor, coder)
        records.append(_record_head(name, tensor, len(body)) + body)
    text = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    size = _FIXED.size + len(text) + sum(map(len, records)) + _DIGEST_BYTES
    fixed = _FIXED.pack(MAGIC, VERSION, size, len(text), len(records))
    data = b"".join((fixed, text, *records))
    return data + _digest(data), parts


def _record_head(name: str, tensor: Tensor, length: int) -> bytes:
    encoded = name.encode()
    return b"".join(
        (
            varint(len(encoded)),
            encoded,
            bytes([DTYPES.index(tensor.dtype), tensor.dim()]),
            *(varint(size) for size in tensor.shape),
            varint(length),
        )
    )


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def is_container(path: Path) -> bool:
    """Whether a file begins as a model.sixz does, or is named like one."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.suffix == SUFFIX
    except OSError:
        return False


def read_container(path: Path) -> Container:
    """Read a file and check that it is whole."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            _check_start(file.read(_FIXED.size), size)
            file.seek(0)
            data = file.read()
        return from_bytes(data)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except DamagedError as error:
        raise refusal(path, error) from error


def refusal(path: Path, error: Exception) -> UserError:
    """The one line that says that a file is not accepted, and why."""
    return UserError(
        f"{path} is damaged or no compressed model ({error}): copy it again, or make it anew "
        "with `sixfold compress`"
    )


def _check_start(start: bytes, size: int) -> None:
    if len(start) < _FIXED.size or start[: len(MAGIC)] != MAGIC:
        raise DamagedError("it does not begin as a .sixz file does")
    _, version, length, _, _ = _FIXED.unpack(start)
    if version != VERSION:
        raise DamagedError(f"format {version}, this version of Sixfold reads {VERSION}")
    if length != size:
        raise DamagedError(f"{length} bytes are announced, it has {size}")


def from_bytes(data: bytes) -> Container:
    """Read the bytes of a file; see `read_container`."""
    _check_start(data[: _FIXED.size], len(data))
    if len(data) < _FIXED.size + _DIGEST_BYTES:
        raise DamagedError("it is too short")
    body = memoryview(data)[:-_DIGEST_BYTES]
    if _digest(body) != data[-_DIGEST_BYTES:]:
        raise DamagedError("its checksum does not fit its content")
    *_, header_length, count = _FIXED.unpack(data[: _FIXED.size])
    reader = Reader(body[_FIXED.size :])
    header = _read_header(reader.take(header_length))
    # A tensor takes at least 5 bytes: name's length, dtype, dims, body's length, body.
    if count > reader.left // 5:
        raise DamagedError(f"{count} tensors in {reader.left} bytes")
    records = tuple(_read_record(reader) for _ in range(count))
    reader.end()
    if len({record.name for record in records}) != count:
        raise DamagedError("a tensor is there twice")
    return Container(header=header, records=records, size_bytes=len(data))


def _read_header(text: memoryview) -> dict[str, Any]:
    unfold = zlib.decompressobj()
    try:
        header = json.loads(unfold.decompress(text, _MOST_HEADER))
    except (zlib.error, ValueError, RecursionError) as error:
        raise DamagedError(f"its header cannot be read: {error}") from error
    if not unfold.eof or unfold.unused_data or not isinstance(header, dict):
        raise DamagedError("its header cannot be read")
    return header


def _read_record(reader: Reader) -> Record:
    try:
        name = str(reader.take(reader.varint(_MOST_NAME)), "utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError("a tensor's name is no text") from error
    number, dims = reader.octet(), reader.octet()
    if number >= len(DTYPES) or dims > _MOST_DIMS:
        raise DamagedError(f"tensor {name!r} has dtype {number} and {dims} dims")
    shape = tuple(reader.varint(_MOST_DIM) for _ in range(dims))
    body = reader.take(reader.varint(reader.left))
    return Record(name=name, dtype=DTYPES[number], shape=shape, body=body)


def unpack(container: Container, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors, after names, dtypes and shapes were held against the architecture's.

    `expected` is its state dict; tensors without values (device meta) will do.
    """
    found = {record.name: (record.dtype, record.shape) for record in container.records}
    wanted = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in expected.items()}
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise DamagedError(
                f"tensor {name!r} is {_told(found.get(name))} in the file and "
                f"{_told(wanted.get(name))} in the network"
            )
    dense_bytes = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    if dense_bytes > _ALWAYS_ALLOWED_BYTES + _MOST_RATIO * container.size_bytes:
        raise DamagedError(f"{dense_bytes} bytes of weights from {container.size_bytes} are absurd")
    tensors = {}
    for record in container.records:
        try:
            tensors[record.name] = unpack_tensor(record.body, record.dtype, record.shape)
        except DamagedError as error:
            raise DamagedError(f"tensor {record.name!r}: {error}") from error
    return tensors


def _told(what: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    if what is None:
        return "absent"
    return f"{str(what[0]).removeprefix('torch.')} {'x'.join(map(str, what[1])) or 'scalar'}"
