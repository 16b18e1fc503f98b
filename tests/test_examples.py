"""Every example runs, in seconds, in an empty folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

SAYS = {
    "train_digits": "bit for bit: True",
    "own_network": "parameters",
    "predict_and_join": "'customer': 'c000'",
    "imbalance": "balanced ",
    "fine_tuning": "fine-tuned:",
    "regression": "ink: mean absolute error",
    "compress": "scores of a blank image",
    "lottery_tickets": "of the weights",
    "tuning": "bit for bit: True",
}


CONNECTED = """
os.environ["SPARK_TESTING"] = "1"  # a port that is free
spark = SparkSession.builder.remote("local[2]").getOrCreate()


"""
"""The notebook's session, over Spark Connect."""


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=390
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_script_is_tested() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts - {"networks", "fast_cifar", "cifar10_record"} == set(SAYS)


@pytest.mark.full
@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    for file in EXAMPLES.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    assert SAYS[name] in run(f"import {name}; {name}.main()", tmp_path)


@pytest.mark.full
def test_the_record_is_trained_on_a_small_cifar_10(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 3073), np.uint8)
    images[:, 0] = np.arange(30) % 10
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name in names:
        (tmp_path / f"{name}.bin").write_bytes(images.tobytes())
    for name in ("fast_cifar", "cifar10_record"):
        (tmp_path / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text())
    words = ["", str(tmp_path), "1", "2", "made"]
    code = f"import sys; sys.argv = {words!r}; import cifar10_record as record"
    code += "; record.BATCH = 50; record.main()"
    first, again = run(code, tmp_path), run(code, tmp_path)  # the second finds it finished
    assert "test accuracy" in first.partition("weights")[0]
    assert first.splitlines()[-1] == again.splitlines()[-1]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.full] * (path.stem != "first_steps"))
        for path in EXAMPLES.glob("*.ipynb")
    ],
)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell.get("outputs") for cell in cells), "clear the outputs"
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "test accuracy" in run("\n\n".join(code), tmp_path)


@pytest.mark.full
@pytest.mark.spark
def test_the_notebook_of_spark_runs_over_connect(tmp_path: Path) -> None:
    pytest.importorskip("pyspark.sql.connect.session")
    cells = json.loads((EXAMPLES / "spark_dataframe.ipynb").read_text())["cells"]
    code = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    began = code.index("builder = ")
    code = code[:began] + CONNECTED + code[code.index("def png(") :]
    assert "test accuracy" in run(code, tmp_path)
