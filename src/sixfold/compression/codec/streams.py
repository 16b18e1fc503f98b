"""A sequence of symbols as bytes that say themselves how they are coded.

    coder   1 byte: 0 fixed width, 1 Huffman, 2 rANS
    fixed   payload: the symbols at `width_of(alphabet)` bits
    Huffman lanes (varint), bits of the shortest lane (varint), width of the rest (1 byte),
            table of code lengths, rest of each lane's bits (width bits a lane),
            length of the payload (varint), payload
    rANS    lanes (varint), precision (4 bits), shift (2 bits above) and grouping (2 bits above),
            table of coarse frequencies, shifted down (few symbols do not pay for exact ones),
            states (4 bytes a lane), number of words (varint), words (2 bytes each)
    table   length in bytes (varint), a number for each symbol by its Rice code; with
            a grouping above 0 for each group of neighbours (see `_groups`), which share it

Count and alphabet are known to the reader. A coder whose tables cost more than it saves gives way
to fixed width.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.compression.codec import huffman, rans, wire
from sixfold.compression.codec.wire import (
    DamagedError,
    Reader,
    Symbols,
    pack_table,
    packed_size,
    unpack_table,
    varint,
)

CODERS = ("fixed", "huffman", "ans")  # By their numbers in the file
SYMBOLS_PER_LANE = 4096
"""In short streams, where every byte counts and time does not. A lane costs some 2 bytes."""

LONG_STREAM = 1 << 17
SYMBOLS_PER_LANE_IF_LONG = 1024
"""Decoding takes a step for every symbol of a lane; 2 bytes are 0.35% of 1024 of 4.5 bits each."""

MOST_SHIFT = 3
GROUPINGS = range(4)
MOST_LANES = 4096  # The working arrays of a step stay in the first-level cache


def encode_stream(symbols: NDArray[Any], alphabet: int, coder: str) -> bytes:
    """Symbols (n,) below `alphabet`, at most `huffman.LARGEST_ALPHABET`, as bytes."""
    width = wire.width_of(alphabet)
    plain = wire.packed_bytes(len(symbols), width)
    if coder != "fixed" and len(symbols):
        found = _huffman(symbols, alphabet) if coder == "huffman" else _rans(symbols, alphabet)
        if found is not None and len(found) <= plain:
            return found
    return b"\0" + wire.pack(symbols, width)


def decode_stream(reader: Reader, count: int, alphabet: int) -> Symbols:
    """The symbols that `encode_stream` was given, (count,)."""
    coder = reader.octet()
    try:
        if coder == 0:
            width = wire.width_of(alphabet)
            data = reader.take(wire.packed_bytes(count, width))
            symbols = wire.unpack(data, width, count).astype(np.uint16)
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


def size_bits(counts: NDArray[np.int64], coder: str) -> float:
    """About how many bits a coder needs for symbols of these counts, (A,), its table included."""
    total = int(counts.sum())
    plain = float(total * wire.width_of(len(counts)))
    if coder == "fixed" or not total:
        return plain
    if coder == "ans":
        return min(_rans_table(counts, _precision(len(counts)))[0], plain)
    used = counts > 0
    # No Huffman code is shorter than 1 bit; otherwise it is within hundredths of the entropy.
    ideal = np.maximum(np.log2(total / counts[used]), 1.0)
    lengths = np.zeros(len(counts), np.uint8)
    lengths[used] = np.minimum(np.ceil(ideal), huffman.LONGEST)
    return min(float((counts[used] * ideal).sum()) + 8 * _table_size(lengths), plain)


def lanes_for(count: int) -> int:
    """How many lanes so many symbols are dealt to."""
    each = SYMBOLS_PER_LANE if count < LONG_STREAM else SYMBOLS_PER_LANE_IF_LONG
    return min(max(count // each, 1), MOST_LANES)


def _table(numbers: NDArray[np.uint8]) -> bytes:
    packed = pack_table(numbers.tolist())
    return varint(len(packed)) + packed


def _table_size(numbers: NDArray[np.uint8]) -> int:
    size = packed_size(numbers)
    return len(varint(size)) + size


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
            wire.pack(lane_bits - least, width),
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
    rest = wire.unpack(reader.take(wire.packed_bytes(lanes, width)), width, lanes)
    data = reader.take(reader.varint(reader.left))
    if count > 8 * len(data):
        raise DamagedError("more symbols than bits")
    return huffman.decode(data, rest.astype(np.int64) + least, lengths, count)


def _rans(symbols: NDArray[Any], alphabet: int) -> bytes | None:
    counts = np.bincount(symbols, minlength=alphabet)
    precision = _precision(alphabet)
    size, options, table = _rans_table(counts, precision)
    if size > len(symbols) * wire.width_of(alphabet):
        return None  # numbers without a pattern, such as a float's last bits
    frequencies = _frequencies(table, options, alphabet)
    words, states = rans.encode(symbols, frequencies, precision, lanes_for(len(symbols)))
    return b"".join(
        (
            b"\2",
            varint(len(states)),
            bytes([options]),
            _table(table),
            states.astype("<u4").tobytes(),
            varint(len(words)),
            words.astype("<u2").tobytes(),
        )
    )


def _rans_table(counts: NDArray[np.int64], precision: int) -> tuple[float, int, NDArray[np.uint8]]:
    """Bits, options and table with which table, symbols and the lanes' states are shortest."""
    found: list[tuple[float, int, NDArray[np.uint8]]] = []
    used, lanes = counts > 0, lanes_for(int(counts.sum()))
    for grouping in GROUPINGS:
        groups = _groups(len(counts), grouping)
        if grouping and int(groups[-1]) + 1 == len(counts):
            break  # too few symbols to make groups of
        shared = np.bincount(groups, weights=counts) / np.bincount(groups)
        # Means of rare symbols lie below 1; only proportions matter.
        fine = rans.coarse(np.ceil(shared * (16 if grouping else 1)).astype(np.int64))
        for shift in range(MOST_SHIFT + 1):
            rounded = fine.astype(np.int64) + (1 << shift >> 1) >> shift
            least = (fine > 0).astype(np.int64)
            table = np.clip(rounded, least, 255 >> shift).astype(np.uint8)
            options = precision | shift << 4 | grouping << 6
            frequencies = _frequencies(table, options, len(counts))[used]
            symbols = float((counts[used] * (precision - np.log2(frequencies))).sum())
            found.append((symbols + 8 * _table_size(table) + 16 * lanes, options, table))
    return min(found, key=lambda option: option[:2])


def _groups(alphabet: int, grouping: int) -> NDArray[np.int64]:
    """Which number of the table stands for each symbol, (A,).

    Grouping 0: each has its own. Grouping g: the first 2**(6 - g) have, of those above each octave
    is cut into 2**(5 - g) groups; the last symbol, which may mean something else than its
    neighbours (a filler), is alone.

    >>> _groups(20, 3).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 13]
    """
    symbols = np.arange(alphabet, dtype=np.int64)
    if not grouping:
        return symbols
    bits = 5 - grouping
    lengths = np.frexp(symbols.astype(np.float64))[1]  # as of int.bit_length
    octaves = np.maximum(lengths - (bits + 1), 0)
    groups: NDArray[np.int64] = (octaves << bits) + (symbols >> octaves)
    if alphabet > 1:
        groups[-1] = groups[-2] + 1
    return groups


def _precision(alphabet: int) -> int:
    return 12 if alphabet <= 64 else 14


def _frequencies(table: NDArray[np.uint8], options: int, alphabet: int) -> NDArray[np.uint32]:
    precision, shift, grouping = options & 15, options >> 4 & MOST_SHIFT, options >> 6
    weights = rans.weights_of(table << np.uint8(shift))
    return rans.normalise(weights[_groups(alphabet, grouping)], precision)


def _read_rans(reader: Reader, count: int, alphabet: int) -> Symbols:
    lanes, options = _read_lanes(reader, count), reader.octet()
    precision, shift = options & 15, options >> 4 & MOST_SHIFT
    if precision not in rans.PRECISIONS:
        raise DamagedError(f"precision {precision} is unknown")
    groups = _groups(alphabet, options >> 6)
    table = _read_table(reader, int(groups[-1]) + 1)
    nonzero = int(np.count_nonzero(table[groups]))
    if not 1 <= nonzero <= 1 << precision or int(table.max()) > 255 >> shift:
        raise DamagedError("its frequencies make no code")
    frequencies = _frequencies(table, options, alphabet)
    states = np.frombuffer(reader.take(4 * lanes), "<u4").astype(np.uint32)
    words = np.frombuffer(reader.take(2 * reader.varint(reader.left // 2)), "<u2")
    return rans.decode(words.astype(np.uint16), states, frequencies, precision, count)


def _read_lanes(reader: Reader, count: int) -> int:
    lanes = reader.varint(MOST_LANES)
    if not 1 <= lanes <= max(count, 1):
        raise DamagedError(f"{lanes} lanes for {count} symbols")
    return lanes
