"""One tensor as bytes: which of its elements are there, and what they are. Nothing is lost.

    layout  1 byte
    0 raw     the elements as they lie in memory
    1 half    float32 or float64 elements that float16 holds exactly: 2 bytes each
    2 dense   values of all elements
    3 sparse  scan (1 byte: 0 by rows, 1 by columns), bits of a gap (1 byte), number of entries
              (varint), stream of gaps, values of the entries

    values  1 byte, then
    0 codebook       number of values K (varint), the values, stream of symbols: 0 for zero,
                     k for the k-th value
    1 half codebook  the same with values of 2 bytes that float16 holds exactly
    2 planes         for each byte of an element, lowest first, the stream of these bytes

Streams are those of `sixfold.compression.codec.streams`. What is smallest is taken. A value of
minus zero comes back as zero.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sixfold.compression.codec import gaps
from sixfold.compression.codec.streams import decode_stream, encode_stream, size_bits
from sixfold.compression.codec.wire import DamagedError, Reader, varint

DTYPES: tuple[torch.dtype, ...] = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
"""By their numbers in the file."""

MOST_VALUES = 1023
"""Of a codebook; with more different values the elements' bytes are coded as they are."""

SMALLEST_CODED = 64  # Tensors of fewer elements, or of one dim (biases, batch-norm), are stored raw
_SAMPLE = 1 << 14
_LARGE = 1 << 16
_DENSE_COST = 1.05
"""rANS codes zeros among the values as shortly as gaps, but a large tensor of few entries takes
many times as long to decode then."""

_COLUMNS_COST = 1.005
"""A scan by columns decodes slower, its entries being scattered: it must save half a percent."""

Patterns = NDArray[Any]
"""Elements as whole numbers of their size: nothing depends on how floats compare."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a tensor's bytes are spent on."""

    elements: int  # of the tensor
    entries: int  # stored elements, fillers included
    kept: int  # elements that are not zero
    values: int = 0  # different values but zero, if there is a codebook; else 0
    gap_bits: int = 0  # of a gap, if the tensor is sparse; else 0
    position_bytes: int = 0  # the stream of gaps
    value_bytes: int = 0  # the stream of symbols, or the elements themselves
    codebook_bytes: int = 0  # the different values
    # what positions and values need at least by a coder that knows just how often each symbol
    # occurs; elements that are stored as they are count in full
    entropy_bytes: float = 0.0


def pack_tensor(tensor: Tensor, coder: str) -> tuple[bytes, Parts]:
    """A tensor of a dtype in `DTYPES`, on the CPU, as bytes, and what they are spent on.

    Name, dtype and shape are not among them.
    """
    patterns = _patterns(tensor)
    places = np.flatnonzero(patterns)
    spent = functools.partial(Parts, elements=tensor.numel(), kept=len(places))
    if not tensor.is_floating_point() or tensor.dim() < 2 or tensor.numel() < SMALLEST_CODED:
        data = _raw(tensor, patterns)
        size = len(data) - 1
        return data, spent(entries=tensor.numel(), value_bytes=size, entropy_bytes=size)
    present = patterns[places]
    codebook = _codebook(present)
    symbols = (np.searchsorted(codebook, present) + 1).astype(np.uint16) if len(codebook) else None
    plan = _plan(places, symbols, tensor, coder)
    if plan is None:
        head, gap_bits, positions = b"\2", 0, b""
        entries, marks = len(patterns), np.zeros(len(patterns), np.uint16)
        if symbols is not None:
            marks[places] = symbols
        elements, position_entropy = patterns, 0.0
    else:
        by_columns, gap_bits = plan
        if by_columns:
            places = gaps.by_columns(places, tuple(tensor.shape))
            order = np.argsort(places)
            places, present = places[order], present[order]
            symbols = symbols[order] if symbols is not None else None
        sparse = gaps.encode(
            places, np.ones(len(places), np.uint16) if symbols is None else symbols, gap_bits
        )
        entries, marks = len(sparse.gaps), sparse.symbols
        positions = encode_stream(sparse.gaps, 1 << gap_bits, coder)
        head = bytes([3, by_columns, gap_bits]) + varint(entries)
        elements, position_entropy = np.zeros(entries, patterns.dtype), _entropy_bytes(sparse.gaps)
        elements[marks > 0] = present
    if symbols is None:
        values = _planes(elements, coder)
    else:
        values = _coded(tensor.dtype, codebook, marks, coder)
    return head + positions + values.data, spent(
        entries=entries,
        values=len(codebook),
        gap_bits=gap_bits,
        position_bytes=len(positions),
        value_bytes=len(values.data) - values.book_bytes,
        codebook_bytes=values.book_bytes,
        entropy_bytes=position_entropy + values.entropy_bytes,
    )


def unpack_tensor(data: bytes | memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The tensor that `pack_tensor` was given.

    Memory of the tensor's size and of a few times its entries is taken: make sure before that
    dtype and shape are the ones expected.
    """
    reader = Reader(data)
    elements = int(np.prod([1, *shape], dtype=object))
    layout = reader.octet()
    if layout == 0:
        patterns = np.frombuffer(reader.take(elements * dtype.itemsize), _unsigned(dtype)).copy()
    elif layout == 1:
        patterns = _from_half(reader.take(2 * elements), dtype)
    elif layout == 2:
        patterns = _read_values(reader, dtype, elements)
    elif layout == 3:
        patterns = _read_sparse(reader, dtype, shape, elements)
    else:
        raise DamagedError(f"layout {layout} is unknown")
    reader.end()
    if dtype == torch.bool and len(patterns) and patterns.max() > 1:
        raise DamagedError("a truth value is neither 0 nor 1")
    return torch.from_numpy(patterns.view(np.uint8)).view(dtype).reshape(shape)


def _unsigned(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _patterns(tensor: Tensor) -> Patterns:
    """The flat tensor as whole numbers, minus zero made zero."""
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
    if flat.is_floating_point():
        flat += 0.0  # -0.0 + 0.0 is 0.0; all else stays
    return flat.view(torch.uint8).numpy().view(_unsigned(tensor.dtype))


def _raw(tensor: Tensor, patterns: Patterns) -> bytes:
    if tensor.dtype in (torch.float32, torch.float64):
        half = _as_half(patterns, tensor.dtype)
        if half is not None:
            return b"\1" + half
    return b"\0" + patterns.tobytes()


def _as_half(patterns: Patterns, dtype: torch.dtype) -> bytes | None:
    """Floats in 2 bytes each, or None where that would alter one."""
    if dtype not in (torch.float32, torch.float64):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        half = patterns.view(f"f{dtype.itemsize}").astype("<f2")
    if np.array_equal(_from_half(half.tobytes(), dtype), patterns):
        return half.tobytes()
    return None


def _from_half(data: bytes | memoryview, dtype: torch.dtype) -> Patterns:
    if dtype not in (torch.float32, torch.float64):
        raise DamagedError(f"a tensor of {dtype} cannot be stored in half")
    wide = np.frombuffer(data, "<f2").astype(f"f{dtype.itemsize}")
    return wide.view(_unsigned(dtype))


def _codebook(present: Patterns) -> Patterns:
    """The different values, ascending as whole numbers; none if they are too many."""
    nothing = present[:0]
    if len(np.unique(present[:_SAMPLE])) > MOST_VALUES:
        return nothing
    known = np.unique(present)
    # A codebook of values that occur once would be the values themselves, and symbols besides.
    return known if len(known) <= min(MOST_VALUES, len(present) // 2) else nothing


def _plan(
    places: NDArray[np.int64], symbols: NDArray[np.uint16] | None, tensor: Tensor, coder: str
) -> tuple[bool, int] | None:
    """Scan by columns or not, and bits of a gap; None if it is shorter to store all elements."""
    elements, kept = tensor.numel(), len(places)
    size_of = functools.partial(size_bits, coder=coder)
    if symbols is None:
        symbols = np.ones(kept, np.uint16)
        bits_each = 8 * tensor.element_size()
        dense = float(bits_each * elements)
    else:
        bits_each = 0
        counts = np.bincount(symbols, minlength=1)
        counts[0] = elements - kept
        dense = size_of(counts)
    if elements > _LARGE and kept < elements // 4:
        dense *= _DENSE_COST
    options = [(dense, 0, False, 0)]
    for by_columns in (False, True):
        scanned, marks = places, symbols
        if by_columns:
            scanned = gaps.by_columns(places, tuple(tensor.shape))
            order = np.argsort(scanned)
            scanned, marks = scanned[order], symbols[order]
        gap_bits, size = gaps.best_bits(scanned, marks, size_of)
        size *= _COLUMNS_COST if by_columns else 1.0
        options.append((size + bits_each * kept, 1, by_columns, gap_bits))
    _, is_sparse, by_columns, gap_bits = min(options)
    return (by_columns, gap_bits) if is_sparse else None


@dataclass(frozen=True, kw_only=True)
class _Values:
    """Elements or entries as bytes, how many of these are the codebook, and the rest's entropy."""

    data: bytes
    book_bytes: int
    entropy_bytes: float


def _entropy_bytes(symbols: NDArray[np.uint16]) -> float:
    return gaps.entropy_bits(np.bincount(symbols)) / 8


def _coded(
    dtype: torch.dtype, codebook: Patterns, symbols: NDArray[np.uint16], coder: str
) -> _Values:
    half = _as_half(codebook, dtype)
    head = (b"\0" if half is None else b"\1") + varint(len(codebook))
    book = codebook.tobytes() if half is None else half
    return _Values(
        data=head + book + encode_stream(symbols, len(codebook) + 1, coder),
        book_bytes=len(head) + len(book),
        entropy_bytes=_entropy_bytes(symbols),
    )


def _planes(patterns: Patterns, coder: str) -> _Values:
    planes = patterns.view(np.uint8).reshape(len(patterns), patterns.dtype.itemsize)
    columns = [planes[:, number].astype(np.uint16) for number in range(planes.shape[1])]
    return _Values(
        data=b"\2" + b"".join(encode_stream(column, 256, coder) for column in columns),
        book_bytes=0,
        entropy_bytes=sum(map(_entropy_bytes, columns)),
    )


def _read_values(reader: Reader, dtype: torch.dtype, count: int) -> Patterns:
    """Elements or entries, (count,)."""
    form = reader.octet()
    if form == 2:
        planes = np.empty((count, dtype.itemsize), np.uint8)
        for number in range(dtype.itemsize):
            planes[:, number] = decode_stream(reader, count, 256)
        return planes.reshape(-1).view(_unsigned(dtype))
    if form > 2:
        raise DamagedError(f"values of form {form} are unknown")
    size = reader.varint(MOST_VALUES)
    codebook = np.zeros(size + 1, _unsigned(dtype))
    if form == 1:
        codebook[1:] = _from_half(reader.take(2 * size), dtype)
    else:
        codebook[1:] = np.frombuffer(reader.take(dtype.itemsize * size), _unsigned(dtype))
    return codebook.take(decode_stream(reader, count, size + 1))


def _read_sparse(
    reader: Reader, dtype: torch.dtype, shape: tuple[int, ...], elements: int
) -> Patterns:
    scan, gap_bits = reader.octet(), reader.octet()
    if scan > 1 or not 1 <= gap_bits <= gaps.MOST_BITS or not shape:
        raise DamagedError(f"scan {scan} with gaps of {gap_bits} bits is unknown")
    entries = reader.varint(elements)
    places = gaps.places_of(decode_stream(reader, entries, 1 << gap_bits))
    if entries and int(places[-1]) >= elements:
        raise DamagedError("an entry lies outside of the tensor")
    values = _read_values(reader, dtype, entries)
    # torch's zeros rather than NumPy's, whose huge pages cost several times as long to clear.
    out = torch.zeros(elements * dtype.itemsize, dtype=torch.uint8).numpy().view(_unsigned(dtype))
    out[gaps.by_rows(places, shape) if scan else places] = values
    return out
