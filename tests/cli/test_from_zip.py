"""Commands on Spark, with Sixfold in a zip file as `spark-submit` takes it.

One of each way of working: a group of ranks, rows that are scored, and pools of items.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sixfold

SOURCE = Path(sixfold.__file__).parent

DRIVER = """
import json, sys
import sixfold
from sixfold.cli import main
assert ".zip" in sixfold.__path__[0], sixfold.__path__
for command in json.load(open(sys.argv[1])):
    code = main(command)
    print("ended", code, *command[:2], flush=True)
"""

SPARK = ["--engine", "spark", "--workers", "2"]
DATA = ["--data", "synthetic:200x3x8x8"]
NET = [*DATA, "--model", "slide", "--batch-size", "40", "--lr", "0.01"]

COMMANDS = [
    ["train", *NET, "--steps", "6", *SPARK, "--out", "run"],
    ["predict", "run", *DATA, *SPARK, "--out", "scores.parquet"],
    ["evaluate", "run", *SPARK, "--noise", "0.1", "--max-images", "20"],
    ["compress", "run", *SPARK, "--prune-epochs", "1", "--share-epochs", "1", "--out", "small"],
    ["tickets", *NET, "--epochs", "1", "--sparsities", "0.5", *SPARK, "--out", "tickets"],
]


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.timeout(1800)
def test_commands_on_spark_work_from_a_zip_file(tmp_path: Path) -> None:
    pyspark = pytest.importorskip("pyspark")
    with zipfile.ZipFile(tmp_path / "sixfold.zip", "w") as zipped:
        for path in SOURCE.rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".so"):
                zipped.write(path, path.relative_to(SOURCE.parent))
    (tmp_path / "main.py").write_text(DRIVER)
    (tmp_path / "commands.json").write_text(json.dumps(COMMANDS))
    submit = Path(next(iter(pyspark.__path__)), "bin", "spark-submit")
    options = ["--master", "local[2]", "--conf", "spark.ui.enabled=false"]
    done = subprocess.run(
        [submit, *options, "--py-files", "sixfold.zip", "main.py", "commands.json"],
        cwd=tmp_path,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    ended = [line for line in done.stdout.splitlines() if line.startswith("ended")]
    # Spark sends both of Python's streams there.
    assert ended == [f"ended 0 {' '.join(command[:2])}" for command in COMMANDS], done.stdout
    assert "was not written" not in done.stdout
    assert len(list(tmp_path.glob("*/*.html"))) >= 3
