"""A reader of model.sixz written from docs/compression.md alone, with NumPy and nothing of ours."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from math import ceil, log2, prod

import numpy as np
import pytest
import torch
from tests.marks import quick
from torch import Tensor

from sixfold.compression.codec import streams
from sixfold.compression.codec.container import to_bytes
from sixfold.compression.codec.streams import CODERS, encode_stream

SIZES = (4, 8, 2, 2, 8, 4, 2, 1, 1, 1)
"""Bytes of an element of each dtype, by number."""


class Bits:
    """Bits of bytes, most significant first."""

    def __init__(self, data: bytes) -> None:
        self.text, self.at = "".join(f"{octet:08b}" for octet in data), 0

    def take(self, count: int) -> int:
        self.at += count
        return int(self.text[self.at - count : self.at] or "0", 2)


class Page:
    """What the page says, one method a paragraph; `seen` counts which forms occurred."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.seen = data, 0, Counter[str]()

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def octet(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            octet = self.octet()
            value |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                return value

    def tensors(self) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
        """Name -> dtype's number, shape, bytes in memory."""
        assert self.data[:8] == bytes.fromhex("895349585A0D0A1A")
        assert self.data[-16:] == hashlib.blake2b(self.data[:-16], digest_size=16).digest()
        self.at = 8
        version, length, header, count = struct.unpack("<HQII", self.take(18))
        assert (version, length) == (1, len(self.data))
        self.take(header)
        found = {}
        for _ in range(count):
            name = self.take(self.varint()).decode()
            dtype, dims = self.octet(), self.octet()
            shape = tuple(self.varint() for _ in range(dims))
            end = self.varint() + self.at
            found[name] = dtype, shape, self.body(dtype, shape)
            assert self.at == end
        assert self.at == len(self.data) - 16
        return found

    def body(self, dtype: int, shape: tuple[int, ...]) -> bytes:
        size, count, layout = SIZES[dtype], prod(shape), self.octet()
        self.seen[f"layout {layout}"] += 1
        if layout == 0:
            return self.take(size * count)
        if layout == 1:
            return self.wide(self.take(2 * count), size)
        if layout == 2:
            return self.values(count, size)
        by_columns, bits, entries = self.octet(), self.octet(), self.varint()
        self.seen[f"scan {by_columns}"] += 1
        places = np.cumsum(np.array(self.stream(entries, 2**bits), int) + 1) - 1
        if by_columns:
            column, row = np.divmod(places, shape[0])
            places = row * (count // shape[0]) + column
        out = np.zeros((count, size), np.uint8)
        out[places] = np.frombuffer(self.values(entries, size), np.uint8).reshape(-1, size)
        return out.tobytes()

    def wide(self, data: bytes, size: int) -> bytes:
        return np.frombuffer(data, "<f2").astype(f"<f{size}").tobytes()

    def values(self, count: int, size: int) -> bytes:
        form = self.octet()
        self.seen[f"values {form}"] += 1
        if form == 2:
            planes = [self.stream(count, 256) for _ in range(size)]
            return np.array(planes, np.uint8).T.tobytes()
        known = self.varint()
        book = self.wide(self.take(2 * known), size) if form else self.take(size * known)
        elements = [bytes(size), *(book[k * size : (k + 1) * size] for k in range(known))]
        return b"".join(elements[symbol] for symbol in self.stream(count, known + 1))

    def packed(self, count: int, width: int) -> list[int]:
        bits = Bits(self.take(ceil(count * width / 8)))
        return [bits.take(width) for _ in range(count)]

    def stream(self, count: int, alphabet: int) -> list[int]:
        coder = self.octet()
        self.seen[f"coder {coder}"] += 1
        if coder == 0:
            return self.packed(count, ceil(log2(alphabet)))
        return (self.huffman if coder == 1 else self.rans)(count, alphabet)

    def table(self, count: int) -> list[int]:
        bits = Bits(self.take(self.varint()))
        k, numbers = bits.take(3), [0]
        for _ in range(count):
            ones = 0
            while bits.take(1):
                ones += 1
            folded = (ones << k) + bits.take(k)
            numbers.append(numbers[-1] + (-(folded + 1) // 2 if folded % 2 else folded // 2))
        return numbers[1:]

    def huffman(self, count: int, alphabet: int) -> list[int]:
        lanes, least, width = self.varint(), self.varint(), self.octet()
        lengths = self.table(alphabet)
        lane_bits = [least + rest for rest in self.packed(lanes, width)]
        payload = Bits(self.take(self.varint()))
        codes, code, before = {}, 0, 0
        for length, symbol in sorted((n, s) for s, n in enumerate(lengths) if n):
            code <<= length - before
            codes[f"{code:0{length}b}"] = symbol
            code, before = code + 1, length
        out = [0] * count
        for lane in range(lanes):
            end = payload.at + lane_bits[lane]
            for place in range(lane, count, lanes):
                word = ""
                while word not in codes:
                    word += str(payload.take(1))
                out[place] = codes[word]
            assert payload.at == end
        return out

    def rans(self, count: int, alphabet: int) -> list[int]:
        lanes, options = self.varint(), self.octet()
        size, shift, grouping = 2 ** (options % 16), options // 16 % 4, options // 64
        self.seen[f"shift {shift}"] += 1
        self.seen[f"grouping {grouping}"] += 1
        groups = list(range(alphabet))
        if grouping:
            b = 5 - grouping
            octaves = [max(s.bit_length() - b - 1, 0) for s in range(alphabet)]
            groups = [o * 2**b + s // 2**o for s, o in enumerate(octaves)]
            if alphabet > 1:
                groups[-1] = groups[-2] + 1
        table = [number * 2**shift for number in self.table(groups[-1] + 1)]
        stands = [t if t < 32 else (16 + t % 16) * 2 ** (t // 16 - 1) for t in table]
        frequencies = self.normalised([stands[group] for group in groups], size)
        states = list(struct.unpack(f"<{lanes}I", self.take(4 * lanes)))
        words = list(np.frombuffer(self.take(2 * self.varint()), "<u2"))[::-1]
        ends = np.cumsum(frequencies)
        out = []
        for place in range(count):
            x = states[place % lanes]
            symbol = int(np.searchsorted(ends, x % size, side="right"))
            x = (
                frequencies[symbol] * (x // size)
                + x % size
                - int(ends[symbol])
                + frequencies[symbol]
            )
            states[place % lanes] = x if x >= 2**16 else x * 2**16 + int(words.pop())
            out.append(symbol)
        assert not words
        assert set(states) == {2**16}
        return out

    def normalised(self, weights: list[int], size: int) -> list[int]:
        whole = sum(weights)
        found = [max(v * size // whole, 1) if v else 0 for v in weights]
        if sum(found) < size:
            found[found.index(max(found))] += size - sum(found)
        while sum(found) > size:
            largest = found.index(max(found))
            found[largest] -= min(sum(found) - size, max(found[largest] // 2, 1))
        return found


def _tensors() -> dict[str, Tensor]:
    """Tensors that call for every form: sparse by rows and by columns, dense, shared, or not."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    def kept(tensor: Tensor, part: float) -> Tensor:
        return tensor * (torch.rand(tensor.shape, generator=draw) < part)

    columns = kept(torch.round(normal(40, 60) * 2) / 2, 0.6)
    columns[:, torch.rand(60, generator=draw) < 0.9] = 0
    return {
        "few": normal(3, 5),
        "bias": torch.round(normal(70) * 4) / 4,
        "steps": torch.arange(5),
        "flag": torch.tensor([True, False]),
        "alone": torch.tensor(3.0),
        "nothing": torch.zeros(20, 10),
        "one": kept(torch.ones(30, 30), 0.1),
        "unshared": kept(normal(40, 30), 0.2),
        "dense": torch.round(normal(50, 30) * 2) / 3,
        "shared": kept(torch.round(normal(60, 60) * 6) / 7, 0.1),
        "half": kept(torch.round(normal(8, 10, 5, 5) * 2) / 4, 0.2),
        "thin": kept(torch.round(normal(100, 120) * 3) / 3, 0.02),
        "wide": torch.round(normal(100, 120) * 60) / 64,
        "columns": columns,
        "double": kept(normal(20, 20).double(), 0.3),
        "brain": normal(20, 20).bfloat16(),
        "small": torch.round(normal(20, 20) * 8).half(),
    }


@pytest.mark.parametrize("coder", CODERS)
def test_a_reader_written_from_the_page_reads_every_tensor(coder: str) -> None:
    tensors = _tensors()
    data, _ = to_bytes({"card": {}}, tensors, coder)
    page = Page(data)
    found = page.tensors()
    assert list(found) == list(tensors)
    for name, (_, shape, content) in found.items():
        own = tensors[name]
        again = torch.frombuffer(bytearray(content), dtype=own.dtype).reshape(shape)
        assert torch.equal(again, own), name
    wanted = {f"layout {n}" for n in range(4)} | {f"values {n}" for n in range(3)}
    wanted |= {"scan 0", "scan 1", f"coder {CODERS.index(coder)}"}
    assert not wanted - set(page.seen), page.seen


@pytest.mark.parametrize("grouping", quick(range(4), 1))
def test_every_table_of_rans_is_read_from_the_page(
    grouping: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few symbols and many, alphabets of 2 to 1,024, in each grouping and most shifts."""
    monkeypatch.setattr(streams, "GROUPINGS", (0, grouping) if grouping else (0,))
    draw, seen = np.random.default_rng(grouping), Counter[str]()
    for alphabet in (2, 5, 16, 33, 64, 65, 256, 1024):
        for count in (100, 3000, 12000):
            scale = 1 + alphabet / draw.uniform(4, 20)
            symbols = np.minimum(draw.exponential(scale, count).astype(np.uint16), alphabet - 1)
            page = Page(encode_stream(symbols, alphabet, "ans"))
            assert page.stream(count, alphabet) == symbols.tolist()
            assert page.at == len(page.data)
            seen += page.seen
    assert seen[f"grouping {grouping}"]
    if not grouping:
        assert sum(name.startswith("shift") for name in seen) >= 3, seen
