"""`sixfold.train` with networks and data in hand."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

import sixfold
from sixfold.api.live import NotebookBar, shown
from sixfold.core.errors import UserError
from sixfold.distributed.engines.inline import InlineEngine
from sixfold.training import log

CELL = """
from torch import nn

WIDTH = 6

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.last = nn.Linear(WIDTH * 16, classes)

    def forward(self, x):
        return self.last(self.features(x).flatten(1))

def make(classes):
    return Net(classes)
"""

ARRAYS = load_digits()
IMAGES, LABELS = (ARRAYS.images[:400] * 15.9).astype(np.uint8), ARRAYS.target[:400]
SHORT: dict[str, Any] = {"epochs": 1, "lr": 0.05, "engine": "inline", "workers": 1}


def run_cell(code: str = CELL) -> SimpleNamespace:
    """What a notebook's namespace holds after a cell."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "<ipython-input-1>", "exec"), space)
    return SimpleNamespace(**space)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "what", ["instance", *(pytest.param(w, marks=pytest.mark.full) for w in ("class", "factory"))]
)
def test_the_bits_do_not_depend_on_engine_and_workers(what: str) -> None:
    torch.manual_seed(3)
    cell = run_cell()
    model = {"class": cell.Net, "instance": cell.Net(), "factory": cell.make}[what]
    before = {n: v.clone() for n, v in model.state_dict().items()} if what == "instance" else {}
    found = set()
    for engine, workers in (("inline", 1), ("local", 2), ("local", 3)):
        result = sixfold.train(
            model,
            (IMAGES, LABELS),
            epochs=1,
            lr=0.05,
            engine=engine,
            workers=workers,
            out=f"{engine}{workers}",
        )
        found.add(result.weights_sha256)
        assert result.workers == workers
    assert len(found) == 1
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.full
@pytest.mark.spark
def test_a_class_of_a_notebook_trains_on_spark(folder: Path) -> None:
    """In a process of its own, which starts Spark and ends it."""
    script = folder / "script.py"
    script.write_text(
        f"import numpy as np, sixfold\nfrom sklearn.datasets import load_digits\n{CELL}\n"
        "d = load_digits()\n"
        "data = (d.images[:400] * 15.9).astype(np.uint8), d.target[:400]\n"
        "options = dict(epochs=1, lr=0.05, workers=2)\n"
        "one = sixfold.train(Net, data, engine='spark', master='local[2]', out='s', **options)\n"
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.master('local[2]').getOrCreate()\n"
        "rows = [(i.tobytes(), int(l)) for i, l in zip(data[0].reshape(400, -1), data[1])]\n"
        "import io\n"
        "from PIL import Image\n"
        "def png(pixels):\n"
        "    out = io.BytesIO()\n"
        "    Image.frombytes('L', (8, 8), pixels).save(out, 'PNG')\n"
        "    return out.getvalue()\n"
        "table = spark.createDataFrame([(png(i), l) for i, l in rows], ['image', 'label'])\n"
        "two = sixfold.train(Net, table, engine='inline', epochs=1, lr=0.05, out='t', workers=1)\n"
        "spark.stop()\n"
        "print(one.weights_sha256, two.steps)\n"
    )
    # As in an activated environment: executors of the user's own session start its Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=390,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    same = sixfold.train(run_cell().Net, (IMAGES, LABELS), out="inline", **SHORT)
    assert done.stdout.split() == [same.weights_sha256, str(same.steps)]


@pytest.mark.full
def test_a_script_without_a_guard(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(
        f"import sixfold\n{CELL}\n"
        "result = sixfold.train(Net, 'digits', epochs=1, lr=0.05, workers=2)\n"
        "print('trained', result.workers, result.test_accuracy)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=390
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained") == 1
    assert done.stderr == ""


def test_the_same_cell_is_the_same_run_and_an_edited_one_is_not() -> None:
    first = sixfold.train(run_cell().Net, (IMAGES, LABELS), out="run", **SHORT)
    told: list[str] = []
    again = sixfold.train(
        run_cell("# again\n" + CELL).Net,
        (torch.from_numpy(IMAGES), LABELS.tolist()),
        out="run",
        on_event=lambda event: told.append(str(event.get("text"))),
        **SHORT,
    )
    assert again == first
    assert any("holds this run, finished" in text for text in told)
    before = sorted(Path("run").rglob("*"))
    with pytest.raises(UserError, match="choose another --out, or replace it with --overwrite"):
        sixfold.train(
            run_cell(CELL.replace("= 6", "= 7")).Net, (IMAGES, LABELS), out="run", **SHORT
        )
    assert Path("run/result.json") in before
    edited = run_cell(CELL.replace("= 6", "= 7")).Net
    other = sixfold.train(edited, (IMAGES, LABELS), out="run", overwrite=True, **SHORT)
    assert other.weights_sha256 != first.weights_sha256
    assert len(list(Path("run/objects").iterdir())) == 1
    assert other.predict(IMAGES).labels


def test_a_run_directory_is_named_after_the_network() -> None:
    one = sixfold.train(run_cell().Net, (IMAGES, LABELS), **SHORT)
    assert one.path.parent == Path("runs").absolute()
    assert one.path.name.startswith("Net-")
    assert sixfold.train(run_cell().Net, (IMAGES, LABELS), **SHORT) == one


def test_everything_wrong_is_told_at_once(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        sixfold.train(
            3, "digits", batchsize=3, lr="fast", workers=0, tf32="perhaps", resume=2, schedule="x"
        )
    told = "\n".join(caught.value.problems)
    for text in (
        "model is a int: expected a network",
        "'batchsize': did you mean batch_size",
        "lr='fast': expected a number",
        "--workers 0: must be at least 1",
        "tf32='perhaps': expected true or false",
        "resume=2: expected true or false",
        "such as step:30",
    ):
        assert text in told
    assert not list(folder.iterdir())


def test_arguments_of_a_factory_are_checked_with_it() -> None:
    cell = run_cell(CELL + "\ndef wide(classes, width=3):\n    return nn.Sequential("
                    "nn.Flatten(), nn.Linear(64, width), nn.Linear(width, classes))")  # fmt: skip
    data = IMAGES, LABELS
    result = sixfold.train(cell.wide, data, model_args="width=5", **SHORT)
    network: Any = result.model().network
    assert network[1].out_features == 5
    with pytest.raises(UserError, match="wide has no argument 'breadth'"):
        sixfold.train(cell.wide, data, model_args="breadth=5", **SHORT)


def test_a_text_is_no_truth_that_it_does_not_say() -> None:
    assert sixfold.configure(deterministic="false").strategy.deterministic is False


def test_a_refused_run_leaves_nothing(folder: Path) -> None:
    with pytest.raises(UserError, match="must give 10"):
        sixfold.train(run_cell().Net(classes=7), (IMAGES, LABELS), **SHORT)
    with pytest.raises(UserError, match="--batch-size 500"):
        sixfold.train(run_cell().Net, (IMAGES, LABELS), batch_size=500, out="run", **SHORT)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert not Path("run").exists()


def test_an_open_engine_is_used_and_left_open() -> None:
    engine = InlineEngine()
    result = sixfold.train(
        run_cell().Net, (IMAGES, LABELS), engine=engine, epochs=1, lr=0.05, workers=1
    )
    assert result.engine == "inline"
    assert engine.slots() >= 1
    engine.close()


def test_a_configuration_is_taken_as_before() -> None:
    config = sixfold.configure(data="digits", resize=28, model="lenet300", steps=2, engine="inline")
    assert sixfold.train(config).steps == 2
    with pytest.raises(UserError, match="not together with a TrainConfig"):
        sixfold.train(config, lr=1.0)


def test_validation_and_test_as_data_or_shares() -> None:
    given = sixfold.train(
        run_cell().Net,
        (IMAGES[:300], LABELS[:300]),
        validation=(IMAGES[300:350], LABELS[300:350]),
        test=(IMAGES[350:], LABELS[350:]),
        **SHORT,
    )
    assert {"validation_accuracy", "test_accuracy"} <= {*given}
    shares = sixfold.train(
        run_cell().Net, (IMAGES, LABELS), validation=0.2, test=0.3, out="shares", **SHORT
    )
    assert shares.epochs == 1
    assert shares.steps == -(-int(400 * 0.7 * 0.8) // 64)
    none = sixfold.train(run_cell().Net, (IMAGES, LABELS), test=False, out="none", **SHORT)
    assert none.steps == 7
    assert "test_accuracy" not in none
    named: dict[str, Any] = {"resize": 28, "steps": 2, "lr": 0.05, "engine": "inline", "workers": 1}
    none = sixfold.train("lenet300", "digits", test=False, out="all", **named)
    split = sixfold.configure(model="lenet300", data="digits", test_split=0.0, out="split", **named)
    assert none.weights_sha256 == sixfold.train(split).weights_sha256


def test_the_result() -> None:
    result = sixfold.train(run_cell().Net, (IMAGES, LABELS), out="run", validation=0.1, **SHORT)
    assert result.test_accuracy == result["test_accuracy"] > 0.1
    assert repr(result).startswith(f"<TrainResult run: test accuracy {result.test_accuracy:.2%}")
    page = result._repr_html_()
    assert result.weights_sha256 in page
    assert "report.html" in page
    assert [line["step"] for line in result.history if "loss" in line] == [
        *range(1, result.steps + 1)
    ]
    table = result.history.to_pandas()
    assert table["loss"].notna().sum() == result.steps
    assert result.history.to_arrow().num_rows == len(table)
    assert "loss" in result.figures()
    model = result.model()
    assert model.classes == tuple("0123456789")
    found = result.predict(IMAGES)
    with torch.inference_mode():
        scores = model(torch.from_numpy(IMAGES)[:, None]).softmax(1)
    assert np.allclose(found.probabilities, scores.numpy(), atol=1e-6)
    assert found.labels == [str(index) for index in found.indices]
    assert len(result.predict((IMAGES[:7], LABELS[:7]))) == 7
    assert len(result.predict("digits")) > 1000
    assert list(found.to_pandas().columns[:3]) == ["prediction", "confidence", "0"]
    with pytest.raises(UserError, match="the network was trained on 1x8x8"):
        result.predict(np.zeros((2, 3, 8, 8), np.uint8))
    with pytest.raises(AttributeError, match="has no 'acuracy'"):
        _ = result.acuracy
    assert sixfold.open_run("run") == result
    with pytest.raises(UserError, match="no run directory"):
        sixfold.open_run("nowhere")
    with pytest.raises(UserError, match="not finished"):
        sixfold.open_run(".")


def test_a_stopped_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "REPORT_S", -1.0)
    told: list[str] = []

    def stop(event: Any) -> None:
        told.append(str(event.get("text")))
        if event.get("kind") == "progress" and event["step"] >= 2:
            raise KeyboardInterrupt

    options = {**SHORT, "epochs": 3, "out": "run", "checkpoint_every": 1}
    options |= {"optimizer": torch.optim.AdamW, "optimizer_args": {"betas": (0.9, 0.95)}}
    cell = run_cell()
    with pytest.raises(KeyboardInterrupt, match="resume=True") as stopped:
        sixfold.train(cell.Net, (IMAGES, LABELS), on_event=stop, **options)
    assert "resume=True" in told[-1]
    assert len(stopped.traceback) < 6  # a notebook shows it
    whole = sixfold.train(cell.Net, (IMAGES, LABELS), **options | {"out": "whole"})
    Path("run").rename("moved")
    options["out"] = "moved"
    resumed = sixfold.train(run_cell().Net, (IMAGES, LABELS), resume=True, **options)
    assert resumed.weights_sha256 == whole.weights_sha256


def test_who_is_shown_what(capsys: pytest.CaptureFixture[str]) -> None:
    event = {"kind": "note", "text": "hello"}
    for quiet, said in ((True, ""), (None, ""), (False, "hello\n")):
        with shown(None, quiet) as tell:
            tell(event)
        assert capsys.readouterr().err == said


def test_a_notebook_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []

    class Handle:
        def update(self, page: str) -> None:
            pages.append(page)

    shell = SimpleNamespace(kernel=object())
    display = SimpleNamespace(HTML=str, display=lambda *_, **__: Handle())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    with shown(None, None) as tell:
        assert isinstance(tell, NotebookBar)
    pages.clear()
    sixfold.train(run_cell().Net, (IMAGES, LABELS), **SHORT)
    assert '<progress value="5" max="5">' in pages[-1]
    assert "loss " in pages[-1]
    assert "test: loss" in pages[-1]


def test_a_notebook_shows_an_error_s_problems_alone() -> None:
    with pytest.raises(UserError) as caught:
        sixfold.train("lenet5", "digits", batchsize=3, lr="fast")
    shown = caught.value._render_traceback_()
    assert shown == ["UserError:", *caught.value.problems]
    assert len(shown) == 3


def test_a_run_is_resumed_by_its_directory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "REPORT_S", -1.0)

    def stop(event: Any) -> None:
        if event.get("kind") == "progress" and event["step"] >= 2:
            raise KeyboardInterrupt

    options = {**SHORT, "epochs": 3, "checkpoint_every": 1, "loss": functional.cross_entropy}
    cell = run_cell()
    with pytest.raises(KeyboardInterrupt):
        sixfold.train(cell.Net, (IMAGES, LABELS), on_event=stop, out="run", **options)
    resumed = sixfold.train(out="run", resume=True)
    whole = sixfold.train(cell.Net, (IMAGES, LABELS), out="whole", **options)
    assert resumed.weights_sha256 == whole.weights_sha256


def test_the_columns_of_a_table_may_be_named(folder: Path) -> None:
    import pandas as pd

    table = pd.DataFrame({"image": list(IMAGES), "sort": LABELS})
    settings = SHORT | {"label_column": "sort"}
    named = sixfold.train("lenet300", table, out="named", **settings)
    alike = table.rename(columns={"sort": "label"})
    same = sixfold.train("lenet300", alike, out="same", **SHORT)
    assert named.weights_sha256 == same.weights_sha256
    with pytest.raises(UserError, match="sorte"):
        sixfold.train("lenet300", table, **(settings | {"label_column": "sorte"}))


def test_what_pytorch_takes_is_taken_or_answered() -> None:
    weighted = sixfold.train(
        run_cell().Net, (IMAGES, LABELS), class_weights=torch.ones(10), freeze=["features.0"],
        out="weighted", **SHORT | {"steps": 1, "epochs": None},
    )  # fmt: skip
    assert weighted.steps == 1
    network = run_cell().Net()
    with pytest.raises(UserError) as caught:
        sixfold.train(
            network, (IMAGES, LABELS), optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
            weights=network.state_dict(), augment=torch.flip, batch_size=0, **SHORT,
        )  # fmt: skip
    said = [line.partition(":")[0] for line in caught.value.problems]
    assert [line.split()[0] for line in said] == [
        "optimizer", "weights", "augment", "--batch-size",
    ]  # fmt: skip
