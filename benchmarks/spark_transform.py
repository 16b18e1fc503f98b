"""Rows/s of `transform` on Spark, over plain PyTorch with the same network, rows and cores.

python benchmarks/spark_transform.py --images 60000

A Parquet table of small JPEGs, a local master with two task slots, in turns with two processes of
one thread each that read half of the files, decode by Pillow and score in batches. Starts are
not counted: each scores the table once before it is timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.spark_fit import environment, make_table, open_session

CORES, BATCH = 2, 500


def train(folder: Path, model: str) -> None:
    """A network of a step, whose scores nobody looks at."""
    import sixfold

    settings: dict[str, Any] = {"model": model, "batch_size": 100, "steps": 1, "workers": 1}
    settings |= {"engine": "inline", "evaluate_every": 0.0, "test": False, "overwrite": True}
    table = str(next((folder / "table").glob("*.parquet")))
    sixfold.train(data=f"parquet:{table}", out=str(folder / "run"), **settings)


def transform(folder: Path, repeats: int) -> list[float]:
    """Seconds of Spark."""
    from sixfold.spark import SixfoldClassificationModel

    session = open_session()
    images = session.read.parquet(str(folder / "table"))
    model = SixfoldClassificationModel.of(folder / "run", trust_model=True)
    found = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        model.transform(images).write.format("noop").mode("overwrite").save()
        found.append(time.perf_counter() - began)
    session.stop()
    return found[1:]


def bare(folder: Path, repeats: int) -> list[float]:
    """Seconds of plain PyTorch."""
    context = multiprocessing.get_context("spawn")
    gates = context.Barrier(CORES + 1)
    files = sorted((folder / "table").glob("*.parquet"))
    ranks = [
        context.Process(target=_score, args=(folder, files[n::CORES], gates, 1 + repeats))
        for n in range(CORES)
    ]
    for rank in ranks:
        rank.start()
    found = []
    for _ in range(1 + repeats):
        gates.wait()
        began = time.perf_counter()
        gates.wait()
        found.append(time.perf_counter() - began)
    for rank in ranks:
        rank.join()
    return found[1:]


def _score(folder: Path, files: list[Path], gates: Any, times: int) -> None:
    """A process's share."""
    import io

    import numpy as np
    import pyarrow.parquet as pq
    import torch
    from PIL import Image

    import sixfold

    torch.set_num_threads(1)
    classifier = sixfold.load(folder / "run", trust_model=True)
    network = classifier.network.eval()
    mean, std = classifier.mean[:, None, None], classifier.std[:, None, None]
    for _ in range(times):
        gates.wait()
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=["image"]):
                cells = batch.column(0).to_pylist()
                pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in cells]
                images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
                with torch.no_grad():
                    scores = network((images - mean) / std)
                scores.softmax(1).argmax(1).tolist()
        gates.wait()


def main() -> None:
    """Measure in turns, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--model", default="spark_torch_script:network")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--job", choices=("transform", "bare", "train"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    if options.job == "train":
        train(options.folder, options.model)
    elif options.job:
        job = transform if options.job == "transform" else bare
        seconds = job(options.folder, options.repeats)
        (options.folder / "told.json").write_text(json.dumps(seconds))
    if options.job:
        return
    rates: dict[str, list[float]] = {"transform": [], "bare": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_table(folder / "table", options.images)
        command = [sys.executable, __file__, "--folder", name, "--model", options.model]
        command += ["--repeats", str(options.repeats), "--job"]
        subprocess.run([*command, "train"], check=True, env=environment(), capture_output=True)
        for job_name in (*rates, *reversed(rates)):
            subprocess.run([*command, job_name], check=True, env=environment())
            seconds = json.loads((folder / "told.json").read_text())
            rates[job_name] += [options.images / each for each in seconds]
    print("| | rows/s: median | least | most |\n|---|---|---|---|")
    for job_name, own in rates.items():
        print(f"| {job_name} | {median(own):,.0f} | {min(own):,.0f} | {max(own):,.0f} |")
    print(f"| ratio | {median(rates['transform']) / median(rates['bare']):.2f} | | |")


if __name__ == "__main__":
    main()
