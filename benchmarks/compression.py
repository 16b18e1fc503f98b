"""Coding networks of the size of VGG-16 and AlexNet: speed, memory, bytes, beside peers.

Weights are drawn at random (normal), pruned by magnitude to the parts that Han, Mao and Dally keep
of each layer ("Deep compression", ICLR 2016, tables 4 and 5), and shared by 8 bits (convolutions)
and 5 bits (linear layers). Real weights are less even than random ones, so their files are smaller.
Decoding runs in a process of its own, whose greatest memory is told.

python benchmarks/compression.py vgg16 --repeats 3
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sixfold.compression.codec import container
from sixfold.compression.codec.clusters import share
from sixfold.compression.loading import build_on_meta
from sixfold.training.model_card import ModelCard
from sixfold.training.sparsity import Counts, magnitude_mask, prunable

KEPT = {
    "alexnet": (84, 38, 35, 37, 37, 9, 9, 25),
    "vgg16": (58, 22, 34, 36, 53, 24, 42, 32, 27, 34, 35, 29, 36, 4, 4, 23),
}
"""Percent of each layer's weights that the paper keeps."""

PAPER_MB = {"alexnet": 6.9, "vgg16": 11.3}


def card_of(model: str) -> ModelCard:
    """The network for ImageNet."""
    return ModelCard(
        model=model,
        model_args="",
        precision="float32",
        shape=(3, 224, 224),
        classes=tuple(map(str, range(1000))),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )


def make(model: str) -> dict[str, Tensor]:
    """Random weights, pruned and shared."""
    network = build_on_meta(card_of(model))
    kept = dict(zip((layer.name for layer in prunable(network)), KEPT[model], strict=True))
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, like in network.state_dict().items():
        weights = torch.randn(like.shape, generator=generator) * 0.02
        if name in kept:
            removed = round(weights.numel() * (1 - kept[name] / 100))
            mask = magnitude_mask({name: weights}, [Counts(names=(name,), pruned=removed)])[name]
            bits = 8 if like.dim() == 4 else 5
            weights, _ = share(torch.where(mask, weights, 0), bits, start="linear", seed=0)
        tensors[name] = weights.half().float()
    return tensors


def timed(function: Callable[[], Any], repeats: int) -> tuple[Any, list[float]]:
    """The result of the last call, and the seconds of each."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - begin)
    return result, sorted(seconds)


def decode(path: Path, repeats: int) -> dict[str, Any]:
    """Read a file and unfold all tensors; with the memory that this process has taken at most."""
    found = container.read_container(path)
    card = json.loads(json.dumps(found.header["card"]))
    expected = build_on_meta(card_of(card["model"])).state_dict()
    before = peak_mib()
    seconds, cpu, after = [], [], before
    for _ in range(repeats):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        tensors = container.unpack(container.read_container(path), expected)
        seconds.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - begin_cpu)
        after = after if len(seconds) > 1 else peak_mib()
        digest = checksum(tensors)
        del tensors
    return {"seconds": seconds, "cpu": cpu, "mib": after - before, "sum": digest}


def peak_mib() -> float:
    """The most memory that this process has held; unlike ru_maxrss not inherited from a parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def checksum(tensors: dict[str, Tensor]) -> float:
    """A number that other weights would hardly have; takes no memory to speak of."""
    return sum(float(tensor.sum(dtype=torch.float64)) for tensor in tensors.values())


def peer_constriction(tensors: dict[str, Tensor]) -> str:
    """Constriction's ANS coder on the symbols of the largest tensor, if it is installed."""
    try:
        import constriction  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return "constriction: not installed (pip install constriction)"
    largest = max(tensors.values(), key=torch.Tensor.numel).reshape(-1).numpy()
    _, symbols = np.unique(largest[largest != 0], return_inverse=True)
    symbols = symbols.astype(np.int32)
    counts = np.bincount(symbols).astype(np.float32)
    model = constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)
    coder = constriction.stream.stack.AnsCoder()
    begin = time.perf_counter()
    coder.encode_reverse(symbols, model)
    words = coder.get_compressed()
    encoded = time.perf_counter() - begin
    begin = time.perf_counter()
    constriction.stream.stack.AnsCoder(words).decode(model, len(symbols))
    decoded = time.perf_counter() - begin
    return f"constriction: {_rates(len(symbols), encoded, decoded)}; " + _own(symbols)


def _own(symbols: np.ndarray[Any, Any]) -> str:
    """Sixfold's rANS on the same symbols."""
    from sixfold.compression.codec.streams import decode_stream, encode_stream
    from sixfold.compression.codec.wire import Reader

    alphabet = int(symbols.max()) + 1
    begin = time.perf_counter()
    data = encode_stream(symbols.astype(np.uint16), alphabet, "ans")
    encoded = time.perf_counter() - begin
    begin = time.perf_counter()
    decode_stream(Reader(data), len(symbols), alphabet)
    return "Sixfold: " + _rates(len(symbols), encoded, time.perf_counter() - begin)


def _rates(count: int, encoded: float, decoded: float) -> str:
    return f"encodes {count / encoded / 1e6:.0f}, decodes {count / decoded / 1e6:.0f} M symbols/s"


def measure(model: str, repeats: int) -> None:
    """Print the figures of one network."""
    tensors = make(model)
    dense = sum(tensor.numel() * 4 for tensor in tensors.values())
    print(f"{model}: {dense / 1e6:.1f} MB dense, the paper's file {PAPER_MB[model]} MB")
    card = {"card": {"model": model}}
    coders: tuple[str, ...] = ("huffman", "ans")
    for coder in coders:
        (data, parts), encoded = timed(
            functools.partial(container.to_bytes, card, tensors, coder), repeats
        )
        entropy = sum(part.entropy_bytes for part in parts.values() if part.values)
        streams = sum(p.position_bytes + p.value_bytes for p in parts.values() if p.values)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.sixz"
            path.write_bytes(data)
            command = [sys.executable, __file__, "--decode", str(path), "--repeats", str(repeats)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(out)
        assert found["sum"] == checksum(tensors), "decoded other weights than were coded"
        seconds = sorted(found["seconds"])
        middle, encoding = seconds[len(seconds) // 2], encoded[len(encoded) // 2]
        print(
            f"  {coder:8} {len(data) / 1e6:6.2f} MB ({dense / len(data):.1f}x, symbols "
            f"{100 * (streams / entropy - 1):.2f}% above entropy)\n"
            f"           encode {encoding:.2f} s ({dense / encoding / 1e6:.0f} MB/s dense), "
            f"decode {middle:.2f} s ({seconds[0]:.2f}-{seconds[-1]:.2f}; "
            f"{dense / middle / 1e6:.0f} MB/s dense; {min(found['cpu']):.2f} s of processor time), "
            f"{found['mib']:.0f} MiB more than before"
        )
    print(f"  values of the largest layer, {peer_constriction(tensors)}")


def main() -> None:
    """Measure one network, or decode one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", choices=tuple(KEPT))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--decode", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.decode is not None:
        print(json.dumps(decode(options.decode, options.repeats)))
    else:
        measure(options.model, options.repeats)


if __name__ == "__main__":
    main()
