"""Callbacks: what they are told, what their actions do, and what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sixfold
from sixfold.core.errors import RunError, UserError
from sixfold.training.callbacks import Callbacks, Log, Moment, SetRate, Stop
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]
HERE = "tests.training.test_callbacks"
MOMENT = Moment(step=3, total_steps=9, epoch=0.5, lr=0.1, loss=1.0, accuracy=0.5)


class Watcher:
    """Halves the rate at step 2, logs at epochs, stops at step 4."""

    def on_start(self, moment: Moment) -> Any:
        assert moment.step in (0, 2)
        return Log("began", moment.step)

    def on_step(self, moment: Moment) -> Any:
        if moment.step == 2:
            return SetRate(0.5)
        return [Stop("enough"), Log("late", moment.loss)] if moment.step == 4 else None

    def on_epoch(self, moment: Moment) -> Any:
        return Log("seen", moment.metrics["loss"] or math.nan)


class Failing:
    def on_step(self, _moment: Moment) -> None:
        raise ValueError("my own mistake")


class Answering:
    def on_step(self, _moment: Moment) -> Any:
        return "stop"


def nothing() -> object:
    return object()


def broken() -> object:
    raise ValueError("no")


@pytest.mark.parametrize("workers", [1, 3])
def test_actions_are_done_by_all_ranks(configure: Configure, tmp_path: Path, workers: int) -> None:
    settings: dict[str, Any] = {"validation": 0.2, "evaluate_every": 1.0, "steps": 9}
    own = {**settings, "callback": (f"{HERE}:Watcher",)}
    found = train(configure(**own, out=str(tmp_path / "run"), workers=workers))
    assert (found["steps"], found["stopped_by"]) == (4, "a callback: enough")
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["lr"] for line in lines if "lr" in line] == [0.01, 0.01, 0.005, 0.005]
    logged: dict[str, Any] = {}
    for line in lines:
        logged |= {name: (line["step"], value) for name, value in line.get("logged", {}).items()}
    assert logged["began"] == (0, 0)
    assert logged["late"][0] == logged["seen"][0] == 4
    evaluated = next(line["eval_loss"] for line in lines if line.get("part") == "validation")
    assert logged["seen"][1] == evaluated
    assert "not a finite number" not in Path(found["report"]).read_text()
    one = train(configure(**own, out=str(tmp_path / "one")))
    assert found["weights_sha256"] == one["weights_sha256"]


def test_a_callback_given_in_python_travels(tmp_path: Path) -> None:
    class Own:
        def __init__(self, last: int) -> None:
            self.last = last

        def on_step(self, moment: Any) -> Any:
            return sixfold.Stop() if moment.step == self.last else None

    found = sixfold.train(
        "lenet300",
        "digits",
        steps=5,
        engine="inline",
        workers=1,
        callbacks=[Own(3)],
        out=str(tmp_path / "run"),
        quiet=True,
    )
    assert (found.steps, found.stopped_by) == (3, "a callback")


def test_failures_of_callbacks_are_told_in_one_line(configure: Configure, tmp_path: Path) -> None:
    for name, said in (
        ("Failing", "on_step raised ValueError: my own mistake"),
        ("Answering", "on_step returned 'stop': expected None, sixfold.Stop"),
    ):
        with pytest.raises(RunError, match=said):
            Callbacks([f"{HERE}:{name}"]).call("on_step", MOMENT)
    with pytest.raises(RunError, match="my own mistake"):
        train(configure(callback=(f"{HERE}:Failing",), out=str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{HERE}:Wacher", "did you mean Watcher"),
        (f"{HERE}:nothing", "has none of the methods on_start"),
        (f"{HERE}:broken", "making it raised ValueError: no"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_written(
    configure: Configure, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        train(configure(callback=(name,), out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
