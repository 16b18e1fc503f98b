"""A sequence of symbols as bytes that say themselves how they are coded.

    coder   1 byte: 0 fixed width, 1 Huffman, 2 rANS
    fixed   payload: the symbols at `width_of(alphabet)` bits
    Huffman lanes (varint), bits of the shortest lane (varint), width of the rest (1 byte),
            table of code lengths, rest of each lane's bits (width bits a lane),
            length of the payload (varint), payload
    rANS    lanes (varint), precision (4 bits) and shift (4 bits above), table of coarse
            frequencies, shifted down (few symbols do not pay for exact ones), states (4 bytes a
            lane), number of words (varint), words (2 bytes each)
    table   length in bytes (varint), a number for each symbol by `sixfold.compression.rice`

Count and alphabet are known to the reader. A coder whose tables cost more than it saves gives way
to fixed width.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sixfold.compression import bits, huffman, rans
from sixfold.compression.bits import Symbols
from sixfold.compression.rice import pack_table, unpack_table
from sixfold.compression.wire import DamagedError, Reader, varint

Coder = Literal["fixed", "huffman", "ans"]
CODERS: tuple[Coder, ...] = ("fixed", "huffman", "ans")
"""By their numbers in the file."""

SYMBOLS_PER_LANE = 4096
"""In short streams, where every byte counts and time does not. A lane costs some 2 bytes."""

LONG_STREAM = 1 << 17
SYMBOLS_PER_LANE_IF_LONG = 1024
"""Decoding takes a step for every symbol of a lane; 2 bytes are 0.35% of 1024 of 4.5 bits each."""

MOST_SHIFT = 3

MOST_LANES = 4096
"""The working arrays of a step stay in the first-level cache."""


def encode_stream(symbols: NDArray[Any], alphabet: int, coder: Coder) -> bytes:
    """Symbols as bytes.

    Args:
        symbols: (n,) below `alphabet`.
        alphabet: A, at most `huffman.LARGEST_ALPHABET`.
        coder: which.
    """
    width = bits.width_of(alphabet)
    plain = bits.packed_bytes(len(symbols), width)
    if coder != "fixed" and len(symbols):
        found = _huffman(symbols, alphabet) if coder == "huffman" else _rans(symbols, alphabet)
        if len(found) <= plain:
            return found
    return b"\0" + bits.pack(symbols, width)


def decode_stream(reader: Reader, count: int, alphabet: int) -> Symbols:
    """The symbols that `encode_stream` was given, (count,).

    Raises:
        DamagedError: if the bytes cannot have come from it.
    """
    coder = reader.octet()
    try:
        if coder == 0:
            width = bits.width_of(alphabet)
            data = reader.take(bits.packed_bytes(count, width))
            symbols = bits.unpack(data, width, count).astype(np.uint16)
        elif coder == 1:
            symbols = _read_huffman(reader, count, alphabet)
        elif coder == 2:
            symbols = _read_rans(reader, count, alphabet)
        else:
            raise DamagedError(f"coder {coder} is unknown")
    except ValueError as error:
        raise DamagedError(str(error)) from error
    if count and int(symbols.max()) >= alphabet:
        raise DamagedError("a symbol is outside of its alphabet")
    return symbols


def size_bits(counts: NDArray[np.int64], coder: Coder) -> float:
    """About how many bits a coder needs for symbols of these counts, its table included.

    Args:
        counts: (A,) how often each symbol occurs.
        coder: which.
    """
    total = int(counts.sum())
    plain = float(total * bits.width_of(len(counts)))
    if coder == "fixed" or not total:
        return plain
    if coder == "ans":
        table, shift = _rans_table(counts, _precision(len(counts)))
        return min(_rans_bits(counts, table, shift, _precision(len(counts))), plain)
    used = counts > 0
    # No Huffman code is shorter than 1 bit; otherwise it is within hundredths of the entropy.
    ideal = np.maximum(np.log2(total / counts[used]), 1.0)
    lengths = np.zeros(len(counts), np.uint8)
    lengths[used] = np.minimum(np.ceil(ideal), huffman.LONGEST)
    return min(float((counts[used] * ideal).sum()) + 8 * len(_table(lengths)), plain)


def lanes_for(count: int) -> int:
    """How many lanes so many symbols are dealt to."""
    each = SYMBOLS_PER_LANE if count < LONG_STREAM else SYMBOLS_PER_LANE_IF_LONG
    return min(max(count // each, 1), MOST_LANES)


def _table(numbers: NDArray[np.uint8]) -> bytes:
    packed = pack_table(numbers.tolist())
    return varint(len(packed)) + packed


def _read_table(reader: Reader, alphabet: int) -> NDArray[np.uint8]:
    # In unary a number takes at most 512 bits.
    return unpack_table(reader.take(reader.varint(64 * alphabet + 1)), alphabet)


def _huffman(symbols: NDArray[Any], alphabet: int) -> bytes:
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=alphabet))
    payload, lane_bits = huffman.encode(symbols, lengths, lanes_for(len(symbols)))
    least = int(lane_bits.min())
    width = int(lane_bits.max() - least).bit_length()
    return b"".join(
        (
            b"\1",
            varint(len(lane_bits)),
            varint(least),
            bytes([width]),
            _table(lengths),
            bits.pack(lane_bits - least, width),
            varint(len(payload)),
            payload,
        )
    )


def _read_huffman(reader: Reader, count: int, alphabet: int) -> Symbols:
    lanes, least, width = _read_lanes(reader, count), reader.varint(1 << 32), reader.octet()
    if width > 31:
        raise DamagedError("a lane's length is absurd")
    lengths = _read_table(reader, alphabet)
    if not huffman.is_complete(lengths):
        raise DamagedError("its code lengths make no code")
    rest = bits.unpack(reader.take(bits.packed_bytes(lanes, width)), width, lanes)
    data = reader.take(reader.varint(reader.left))
    if count > 8 * len(data):
        raise DamagedError("more symbols than bits")
    return huffman.decode(data, rest.astype(np.int64) + least, lengths, count)


def _rans(symbols: NDArray[Any], alphabet: int) -> bytes:
    counts = np.bincount(symbols, minlength=alphabet)
    precision = _precision(alphabet)
    table, shift = _rans_table(counts, precision)
    frequencies = _frequencies(table, shift, precision)
    words, states = rans.encode(symbols, frequencies, precision, lanes_for(len(symbols)))
    return b"".join(
        (
            b"\2",
            varint(len(states)),
            bytes([precision | shift << 4]),
            _table(table),
            states.astype("<u4").tobytes(),
            varint(len(words)),
            words.astype("<u2").tobytes(),
        )
    )


def _rans_table(counts: NDArray[np.int64], precision: int) -> tuple[NDArray[np.uint8], int]:
    """The table and its shift with which table and symbols together are shortest."""
    fine = rans.coarse(counts).astype(np.int64)
    used = counts > 0
    options = []
    for shift in range(MOST_SHIFT + 1):
        rounded = np.where(used, np.maximum((fine + (1 << shift >> 1)) >> shift, 1), 0)
        table = np.minimum(rounded, 255 >> shift).astype(np.uint8)
        options.append((_rans_bits(counts, table, shift, precision), shift, table))
    _, shift, table = min(options, key=lambda option: option[:2])
    return table, shift


def _rans_bits(
    counts: NDArray[np.int64], table: NDArray[np.uint8], shift: int, precision: int
) -> float:
    """Bits of a table, of symbols of these counts coded by it, and of the lanes' first states."""
    used = counts > 0
    frequencies = _frequencies(table, shift, precision)[used]
    symbols = float((counts[used] * (precision - np.log2(frequencies))).sum())
    return symbols + 8 * len(_table(table)) + 16 * lanes_for(int(counts.sum()))


def _precision(alphabet: int) -> int:
    return 12 if alphabet <= 64 else 14


def _frequencies(table: NDArray[np.uint8], shift: int, precision: int) -> NDArray[np.uint32]:
    return rans.normalise(rans.weights_of(table << np.uint8(shift)), precision)


def _read_rans(reader: Reader, count: int, alphabet: int) -> Symbols:
    lanes, options = _read_lanes(reader, count), reader.octet()
    precision, shift = options & 15, options >> 4
    if precision not in rans.PRECISIONS or shift > MOST_SHIFT:
        raise DamagedError(f"precision {precision} with shift {shift} is unknown")
    table = _read_table(reader, alphabet)
    if not 1 <= np.count_nonzero(table) <= 1 << precision or int(table.max()) > 255 >> shift:
        raise DamagedError("its frequencies make no code")
    frequencies = _frequencies(table, shift, precision)
    states = np.frombuffer(reader.take(4 * lanes), "<u4").astype(np.uint32)
    words = np.frombuffer(reader.take(2 * reader.varint(reader.left // 2)), "<u2")
    return rans.decode(words.astype(np.uint16), states, frequencies, precision, count)


def _read_lanes(reader: Reader, count: int) -> int:
    lanes = reader.varint(MOST_LANES)
    if not 1 <= lanes <= max(count, 1):
        raise DamagedError(f"{lanes} lanes for {count} symbols")
    return lanes
