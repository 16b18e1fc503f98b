"""`fit` of a Parquet table of 60,000 small JPEGs, and TorchDistributor's script for the same job.

python benchmarks/spark_fit.py --images 60000

A local master with two task slots, in turns with TorchDistributor in local mode with
two processes. What passes the driver: the results of all tasks, as Spark's own metrics have them,
and the package that is sent to executors once a session.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CLASSES, FILES = 10, 8
SCRIPT = Path(__file__).with_name("spark_torch_script.py")


def make_table(folder: Path, images: int) -> None:
    """JPEG files of noise about a colour of their class."""
    from PIL import Image

    random, folder = np.random.default_rng(0), folder
    folder.mkdir()
    centres = random.integers(60, 200, (CLASSES, 3))
    for number in range(FILES):
        rows = []
        for label in random.integers(0, CLASSES, images // FILES).tolist():
            pixels = centres[label] + random.normal(0, 40, (32, 32, 3))
            file = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG")
            rows.append({"image": file.getvalue(), "label": label})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number}.parquet")


def fit(table: str, batch: int, folder: str) -> dict[str, float]:
    """The estimator's job, twice: of a new table, and of one that is prepared."""
    sys.path.insert(0, str(SCRIPT.parent))
    session = open_session()
    began = time.time()
    # BEGIN
    from sixfold.spark import SixfoldClassifier

    images = session.read.parquet(table)
    classifier = SixfoldClassifier(
        model="spark_torch_script:network", imageCol="image", labelCol="label",
        batchSize=batch, epochs=1.0, numWorkers=2, out=f"{folder}/run-1",
    )  # fmt: skip
    model = classifier.fit(images)
    # END
    first = _first_step(Path(folder, "run-1")) - began
    context = session.sparkContext
    url = f"{context.uiWebUrl}/api/v1/applications/{context.applicationId}/stages"
    with urllib.request.urlopen(url) as answer:
        stages = json.loads(answer.read())
    sent = [Path(name.removeprefix("file:")).name for name in context.listFiles]
    found = {
        "seconds to the first step": first,
        "seconds of it for preparation": model.summary.prepare_s,
        "images/s": model.summary.train_images_per_s,
        "bytes of task results": sum(stage.get("resultSize", 0) for stage in stages),
        "bytes of code, once an executor": sum(
            path.stat().st_size for name in sent for path in Path(context._temp_dir).rglob(name)
        ),
        "decoded": model.summary.decoded,
    }
    began = time.time()
    again = classifier.setOut(f"{folder}/run-2").fit(images)
    found["seconds to the first step, prepared"] = _first_step(Path(folder, "run-2")) - began
    found["decoded again"] = again.summary.decoded
    session.stop()
    return found


def open_session() -> Any:
    """A local master with two task slots."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]")
    for key in ("spark.driver.host", "spark.driver.bindAddress"):
        builder = builder.config(key, "127.0.0.1")
    return builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()


def _first_step(run: Path) -> float:
    with (run / "metrics.jsonl").open() as lines:
        return float(json.loads(next(lines))["time"])


def distributed(table: str, batch: int, folder: str) -> dict[str, float]:
    """TorchDistributor's job."""
    from pyspark.ml.torch.distributor import TorchDistributor

    session = open_session()
    began, told = time.time(), f"{folder}/steps.json"
    distributor = TorchDistributor(num_processes=2, local_mode=True, use_gpu=False)
    distributor.run(str(SCRIPT), table, str(batch), "1", f"{folder}/weights.pt", told)
    session.stop()
    steps = json.loads(Path(told).read_text())
    images = sum(count for _, count in steps[3:])
    return {
        "seconds to the first step": steps[0][0] - began,
        "images/s": images / (steps[-1][0] - steps[2][0]),
    }


def lines_of(path: Path) -> int:
    """Lines of code between BEGIN and END, without blank ones."""
    inside = path.read_text().partition("# BEGIN")[2].partition("# END")[0]
    return sum(bool(line.strip()) for line in inside.splitlines())


def main() -> None:
    """Measure in turns, each job in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--job", choices=("fit", "distributed"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.job:
        table = str(options.folder.parent / "table")
        job = fit if options.job == "fit" else distributed
        told = job(table, options.batch, str(options.folder))
        (options.folder / "told.json").write_text(json.dumps(told))
        return
    found: dict[str, dict[str, list[Any]]] = {"fit": {}, "distributed": {}}
    with tempfile.TemporaryDirectory() as name:
        make_table(Path(name, "table"), options.images)
        for repeat in range(options.repeats):
            for job_name, own in found.items():
                folder = Path(name, f"{job_name}{repeat}")
                folder.mkdir()
                command = [sys.executable, __file__, "--job", job_name, "--folder", str(folder)]
                command += ["--batch", str(options.batch)]
                own_cache = {**environment(), "SIXFOLD_CACHE": str(folder / "cache")}
                subprocess.run(command, check=True, env=own_cache, stdout=subprocess.DEVNULL)
                for what, value in json.loads((folder / "told.json").read_text()).items():
                    own.setdefault(what, []).append(value)
    print("| | `SixfoldClassifier.fit` | TorchDistributor |\n|---|---|---|")
    for what in {**found["fit"], **found["distributed"]}:
        cells = [_cell(own[what]) if what in own else "" for own in found.values()]
        print(f"| {what} | {' | '.join(cells)} |")
    print(f"| lines of the user's code | {lines_of(Path(__file__))} | {lines_of(SCRIPT)} |")


def _cell(values: Sequence[float]) -> str:
    """The median, and where there are several the least and the most."""
    most = f" ({min(values):,.1f} to {max(values):,.1f})" if len(values) > 1 else ""
    return f"{median(values):,.1f}{most}"


def environment() -> dict[str, str]:
    """Of a job, whose executors take this Python."""
    import os

    return {**os.environ, "PYSPARK_PYTHON": sys.executable}


if __name__ == "__main__":
    main()
