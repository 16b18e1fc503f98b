"""Training on tensor shards that are streamed from an S3 server on loopback through a small cache.

    python -m benchmarks.streaming [--model slide] [--epochs 2] [--workers 2] [--images 512]

The set is ten times the cache. It is trained on from a local folder and from the server (moto's, in
a process of its own), in turns; told are the hashes, the images per second, and the share of the
ranks' time in which they waited for data. Needs `pip install 'sixfold[s3]' 'moto[server]'`.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import sixfold
from sixfold.core.files import file_sha256
from sixfold.core.run_directory import read_json_lines
from sixfold.data.manifest import Manifest, ShardEntry
from sixfold.data.shard_files import encode

FILES, TOGETHER = 42, 2  # files of the set; those visited at a time
PHASES = ("data_s", "communication_s", "waiting_s", "update_s", "compute_s")


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="slide")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--images", type=int, default=512, help="of a file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        os.environ["SIXFOLD_CACHE"] = str(folder / "cache")
        make_set(folder / "shards", asked.images)
        size = sum(path.stat().st_size for path in (folder / "shards").glob("train-*"))
        server = start_server(folder)
        try:
            url = upload(folder / "shards")
            ways = {
                "local": {"data": f"shards:{folder / 'shards'}"},
                "streamed": {"data": f"shards:{url}", "cache_size": str(size // 10)},
            }
            print(f"{size:,} bytes of shards, cache {size // 10:,}; load {os.getloadavg()[0]:.1f}")
            for name, data in ways.items():
                out = folder / name
                result = sixfold.train(
                    asked.model,
                    out=str(out),
                    epochs=asked.epochs,
                    workers=asked.workers,
                    batch_size=asked.batch_size,
                    lr=0.01,
                    evaluate_every=0.0,
                    shuffle_files=TOGETHER,
                    quiet=True,
                    **data,
                )
                print(
                    f"{name:9} {result.train_images_per_s:8,.0f} images/s, idle for data "
                    f"{idle(out):.2%}, weights {result.weights_sha256[:16]}"
                )
        finally:
            server.terminate()
            server.wait()


def idle(run: Path) -> float:
    """Share of the time of all ranks' steps, after the first ones, that they waited for data."""
    lines = [one for path in run.glob("timeline/*.jsonl") for one in read_json_lines(path)[3:]]
    return sum(one["data_s"] for one in lines) / sum(one[p] for one in lines for p in PHASES)


def make_set(folder: Path, count: int) -> None:
    """Shards of so many random images each."""
    folder.mkdir()
    draw, entries = np.random.default_rng(0), {}
    for part, files in (("train", FILES), ("test", 1)):
        entries[part] = []
        for number in range(files):
            images = draw.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
            labels = draw.integers(0, 10, count).tolist()
            names = [f"{part}[{number * count + i}]" for i in range(count)]
            path = folder / f"{part}-{number:05d}.arrow"
            path.write_bytes(encode(images, labels, names, [""] * count))
            entries[part].append(
                ShardEntry(
                    file=path.name,
                    count=count,
                    bytes=path.stat().st_size,
                    sha256=file_sha256(path),
                )
            )
    classes = tuple(map(str, range(10)))
    parts = {part: tuple(each) for part, each in entries.items()}
    Manifest(name="random", classes=classes, shape=(3, 32, 32), parts=parts).save(folder)


def start_server(folder: Path) -> "subprocess.Popen[bytes]":
    """A server, of which the environment tells."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "server.txt").open("w") as log:
        command = [sys.executable, "-m", "moto.server", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    while True:
        if server.poll() is not None:
            raise SystemExit((folder / "server.txt").read_text())
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.1)


def upload(folder: Path) -> str:
    """Put a folder into a new bucket; its URL."""
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir("shards")
    for path in folder.iterdir():
        store.put_file(str(path), f"shards/{path.name}")
    return "s3://shards"


if __name__ == "__main__":
    main()
