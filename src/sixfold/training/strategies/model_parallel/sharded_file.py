"""One safetensors file, written and read by ranks that hold parts of its tensors.

The file holds whole tensors, as if one process had written it, so it can be read by anyone, in any
division. No rank ever holds a whole tensor: it is handed to rank 0, and read, a few megabytes at a
time. Its form, with checksums, is that of `sixfold.core.tensor_file`.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sixfold.core.files import explained
from sixfold.core.tensor_file import (
    CODES,
    Entry,
    Header,
    in_file_order,
    read_exactly,
    read_header,
)
from sixfold.distributed.process_group import Communicator
from sixfold.training.strategies.model_parallel.layout import Box, common, sizes, slices
from sixfold.training.strategies.model_parallel.part import Part

BLOCK_BYTES = 4 << 20
"""What is handed over or read at a time."""


@dataclass(frozen=True)
class Piece:
    """A rank's part of one tensor of a file.

    Attributes:
        name: of the tensor in the file.
        part: which part.
        value: the part; written from, or read into.
    """

    name: str
    part: Part
    value: Tensor

    @property
    def view(self) -> tuple[int, ...]:
        """The shape in which the whole is cut."""
        return self.part.layout.shape or (1,)

    def box(self, rank: int) -> Box:
        """What a rank holds of it."""
        return self.part.layout.box(rank) or ((0, 1),)

    @property
    def entry(self) -> Entry:
        """What the file's header says of the whole tensor."""
        dtype = str(self.value.dtype).removeprefix("torch.")
        return Entry(dtype, tuple(self.part.shape), self.value.dtype.itemsize)


def write_parts(
    path: Path, group: Communicator, pieces: Sequence[Piece], metadata: Mapping[str, str]
) -> None:
    """Write a file together: every rank of a group calls this, rank 0 writes.

    Args:
        path: the file; put there all at once.
        group: the ranks that together hold everything.
        pieces: this rank's part of every tensor, in the same order on all ranks.
        metadata: kept in the header.

    Raises:
        RunError: if it cannot be written.
    """
    pieces = _in_file_order(pieces)
    if group.rank != 0:
        for piece in pieces:
            for _ in _blocks_at_root(group, piece):
                pass
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            with temporary.open("wb") as file:
                header = Header({piece.name: piece.entry for piece in pieces}, metadata)
                file.write(header.to_bytes())
                for piece in pieces:
                    found = piece.entry.seed(piece.name)
                    for block in _blocks_at_root(group, piece):
                        file.write(block.data)
                        found = zlib.crc32(block.data, found)
                    header.checksums[piece.name] = found
                file.seek(0)
                file.write(header.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_parts(path: Path, rank: int, pieces: Sequence[Piece]) -> None:
    """Read a rank's parts from a file of whole tensors, which one rank has verified before.

    Args:
        path: the file.
        rank: of the group.
        pieces: their values are overwritten.

    Raises:
        KeyError: if a tensor is missing.
        ValueError: if it has another shape or dtype.
        SafetensorError: if the file is damaged.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        header, start = read_header(file)
        for piece in pieces:
            entry = header[piece.name]
            expected = [CODES[piece.entry.dtype], list(piece.part.shape)]
            if [entry["dtype"], entry["shape"]] != expected:
                found = f"{entry['dtype']} {entry['shape']}"
                raise ValueError(f"{piece.name} is {found}, not {expected[0]} {expected[1]}")
            _read_piece(file, start + entry["data_offsets"][0], piece, piece.box(rank))


def sha256_of(path: Path) -> str:
    """`weights_sha256` of the tensors in a file, read a block at a time."""
    names = {code: dtype for dtype, code in CODES.items()}
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header, start = read_header(file)
        header.pop("__metadata__", None)
        for name in sorted(header):
            entry = header[name]
            digest.update(f"{name}\0{entry['shape']}\0{names[entry['dtype']]}\0".encode())
            first, last = entry["data_offsets"]
            file.seek(start + first)
            for at in range(first, last, BLOCK_BYTES):
                digest.update(file.read(min(BLOCK_BYTES, last - at)))
    return digest.hexdigest()


def _in_file_order(pieces: Sequence[Piece]) -> list[Piece]:
    """Wide types first, so that every tensor is aligned; then by name."""
    return sorted(pieces, key=lambda piece: in_file_order(piece.name, piece.entry.itemsize))


def _row_blocks(piece: Piece, box: Box) -> Iterator[Box]:
    """A box in runs of whole rows (of the first dim), each of no more than a block's bytes."""
    row_bytes = max(prod(piece.view[1:]) * piece.value.dtype.itemsize, 1)
    count = max(BLOCK_BYTES // row_bytes, 1)
    start, stop = box[0]
    for first in range(start, stop, count):
        yield ((first, min(first + count, stop)), *box[1:])


def _blocks_at_root(group: Communicator, piece: Piece) -> Iterator[NDArray[Any]]:
    """The whole tensor, block after block, on rank 0; on the others nothing but empty arrays."""
    layout = piece.part.layout
    copied = tuple(sorted(layout.copied))
    owners = [rank for rank in range(group.size) if layout.mesh.place(rank, copied) == 0]
    own = piece.value.detach().view(sizes(piece.box(group.rank))).numpy()
    whole: Box = tuple((0, length) for length in piece.view)
    for block in _row_blocks(piece, whole):
        shares = {rank: common(piece.box(rank), block) for rank in owners}
        mine = shares.get(group.rank)
        held = None if mine is None else own[slices(mine, piece.box(group.rank))]
        if group.rank != 0:
            if held is not None:
                group.exchange({0: np.ascontiguousarray(held)}, {})
            yield np.empty(0)
            continue
        received = {
            rank: np.empty(sizes(share), own.dtype)
            for rank, share in shares.items()
            if rank != 0 and share is not None
        }
        group.exchange({}, received)
        assembled = np.empty(sizes(block), own.dtype)
        for rank, share in shares.items():
            if share is not None:
                value = held if rank == 0 else received[rank]
                assembled[slices(share, block)] = value
        yield assembled


def _read_piece(file: BinaryIO, start: int, piece: Piece, box: Box) -> None:
    target = piece.value.detach().view(sizes(box)).numpy()
    row = prod(piece.view[1:])
    for block in _row_blocks(piece, box):
        first, last = block[0]
        file.seek(start + first * row * target.itemsize)
        data = read_exactly(file, (last - first) * row * target.itemsize)
        rows = np.frombuffer(data, target.dtype).reshape(last - first, *piece.view[1:])
        whole: Box = ((first, last), *((0, length) for length in piece.view[1:]))
        target[slices(block, box)] = rows[slices(block, whole)]
