"""Every example runs, in seconds, in an empty folder."""

import ast
import contextlib
import functools
import importlib.util
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from tests.spark_masters import EngineProcess

import sixfold

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TASKS = re.findall(
    r"^\| `(\w+)` \| `(.*)` \| (\d+) \| (.*) \|$", (ROOT / "docs" / "recipes.md").read_text(), re.M
)
"""Name, code, lines, and lines elsewhere of every task of a first day, as the page has them."""

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


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=390
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_script_is_tested() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts - {"networks", "fast_cifar", "cifar10_record", "first_day"} == set(SAYS)


@pytest.mark.full
@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    for file in EXAMPLES.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    assert SAYS[name] in run(f"import {name}; {name}.main()", tmp_path)


def functions(file: Path) -> dict[str, list[str]]:
    """The lines of every function of a script, without its head and blank lines."""
    lines = file.read_text().splitlines()
    return {
        node.name: [line for line in lines[node.lineno : node.end_lineno] if line.strip()]
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }


def test_the_page_of_a_first_day_counts_what_is_there() -> None:
    ours = functions(EXAMPLES / "first_day.py")
    peers = ROOT / "benchmarks" / "first_day"
    theirs = functions(peers / "training.py") | functions(peers / "using.py")
    for name, code, lines, elsewhere in TASKS:
        assert int(lines) == len(ours[name])
        assert elsewhere == (str(len(theirs[name])) if name in theirs else "not offered")
        text = " ".join(line.strip() for line in ours[name])
        assert all(piece in text for piece in code.removesuffix(", ...)").split(" ... ")), name
    assert {name for name, *_ in TASKS} >= set(theirs)


@pytest.fixture
def first_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, in an empty folder, its trainings in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("train", "lr_find", "tune"):
        function = functools.partial(getattr(sixfold, name), engine="inline")
        monkeypatch.setattr(sixfold, name, function)
    spec = importlib.util.spec_from_file_location("first_day", EXAMPLES / "first_day.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "first_day", module)
    spec.loader.exec_module(module)
    torch.save(module.Net().state_dict(), "net.pth")
    return module


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name, *_ in TASKS])
def test_a_task_of_a_first_day_is_done(name: str, first_day: Any) -> None:
    if name in ("tensorboard", "mlflow"):
        pytest.importorskip(name)
    assert set(first_day.TASKS) == {task for task, *_ in TASKS}
    found = first_day.TASKS[name]()
    assert found is not None
    assert found is not False
    if isinstance(found, float):
        assert 0 < found < 1


KILLED = """
import os, signal, sixfold, first_day
train = sixfold.train
def hit(event):
    if event.get("kind") == "evaluation" and event["epoch"] >= 2:
        os.kill(os.getpid(), signal.SIGKILL)
sixfold.train = lambda *data, **options: train(*data, engine="inline", on_event=hit, **options)
first_day.resume_after_a_kill()
"""


@pytest.mark.full
def test_the_task_that_is_killed_goes_on(first_day: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    done = subprocess.run([sys.executable, "-c", KILLED], timeout=390, check=False)
    assert done.returncode == -signal.SIGKILL
    kept = [path.name for path in Path("runs/long/checkpoints").iterdir()]
    assert kept
    first = json.loads(Path("runs/long/metrics.jsonl").read_text().splitlines()[0])
    assert first_day.resume_after_a_kill() == 4 * 23
    assert sixfold.open_run("runs/long").history[0] == first  # no step is made again


@pytest.mark.full
def test_the_record_has_one_hash_for_one_and_two_workers(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 3073), np.uint8)
    images[:, 0] = np.arange(30) % 10
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name in names:
        (tmp_path / f"{name}.bin").write_bytes(images.tobytes())
    for name in ("fast_cifar", "cifar10_record"):
        (tmp_path / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text())
    hashes, last = [], []
    for workers, out in (("1", "one"), ("1", "one"), ("2", "two")):  # the second is finished
        words = ["", str(tmp_path), workers, "2", out]
        code = f"import sys; sys.argv = {words!r}; import cifar10_record as record"
        told = run(f"{code}; record.BATCH = 50; record.main()", tmp_path)
        hashes += re.findall(r"test accuracy \S+, weights (\w{16})", told)
        last.append(told.splitlines()[-1])
    assert len(hashes) == 3
    assert len(set(hashes)) == 1
    assert len(set(last)) == 1  # its accuracy with views at test time
    found = [sixfold.open_run(tmp_path / name) for name in ("one", "two")]
    assert [result.workers for result in found] == [1, 2]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=pytest.mark.full) for path in EXAMPLES.glob("*.ipynb")],
)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell.get("outputs") for cell in cells), "clear the outputs"
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "test accuracy" in run("\n\n".join(code), tmp_path)


def run_cells(engine: Any, code: str, folder: str) -> str:
    """Run a notebook's code in the process that holds a Spark Connect session; what it prints."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {"__name__": "__main__", "spark": engine.connected})
    return printed.getvalue()


@pytest.mark.full
@pytest.mark.spark
def test_the_notebook_of_spark_runs_over_connect(
    spark_connect: EngineProcess, tmp_path: Path
) -> None:
    cells = json.loads((EXAMPLES / "spark_dataframe.ipynb").read_text())["cells"]
    code = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    began = code.index("builder = ")
    code = code[:began] + code[code.index("def png(") :].replace("spark.stop()", "")
    code = code.replace('"digits-model"', repr(f"{tmp_path}/model"))  # the server is elsewhere
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        printed = spark_connect.call(run_cells, code, str(tmp_path))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert "test accuracy" in printed
    assert (tmp_path / "model" / "model.safetensors").is_file()
