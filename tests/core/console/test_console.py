"""What a person sees: bars where they can be rewritten, plain lines elsewhere."""

import re
import time
from typing import Any

import pytest

from sixfold.core.console.console import Console

PROGRESS = {"epoch": 0.5, "loss": 1.25, "accuracy": 0.75, "images_per_s": 1234.0}


def step(number: int) -> dict[str, Any]:
    return {"kind": "progress", "step": number, "total": 10, **PROGRESS}


def line(name: str, state: str, part: float) -> dict[str, Any]:
    facts = {"epoch": None, "accuracy": 0.5, "seconds": 75.0, "left_s": 30.0}
    return {"name": name, "state": state, "part": part, **facts}


def job(*lines: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "job", "lines": list(lines), "left_s": 90.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_there_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with Console() as console:
        for number in range(1, 4):
            console(step(number))
            clock[0] += 4.0
        console({"kind": "note", "text": "[a] note"})
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 1 of 10  epoch 0.50  loss 1.2500  accuracy 75.0%  1,234 images/s",
        "step 3 of 10  epoch 0.50  loss 1.2500  accuracy 75.0%  1,234 images/s  about 28 s left",
        "[a] note",
    ]


def test_a_terminal_has_a_bar_with_total_and_time_left(
    capsys: pytest.CaptureFixture[str], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with Console() as console:
        console(step(1))
        clock[0] += 4.0
        console(step(3))
        console({"kind": "note", "text": "[a] note"})
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    drawn = text.splitlines()[-1]
    assert drawn.startswith("step 3 of 10 ━━━━━━━")
    assert drawn.rstrip().endswith("1,234 images/s  about 14 s left")
    assert any(found.strip() == "[a] note" for found in text.splitlines())


def test_a_job_has_a_bar_for_each_task_that_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with Console() as console:
        console(job(line("one", "running", 0.5), line("two", "waiting", 0.0)))
        console(job(line("one", "done", 1.0), line("two", "running", 0.25)))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    last = [found.rstrip() for found in text.splitlines()[-3:]]
    assert last[0].startswith("tasks ━━━")
    assert last[0].endswith("1 of 2 done, 1 running, about 1 min 30 s left")
    assert last[1].startswith("one   ━━━")
    assert last[1].endswith("done     accuracy 50.00%  1 min 15 s")
    assert last[2].endswith("running  accuracy 50.00%  1 min 15 s  about 30 s left")


def test_elsewhere_a_job_tells_of_each_task_that_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Console() as console:
        console(job(line("one", "running", 0.5), line("old", "kept", 1.0)))
        console(job(line("one", "failed", 0.0), line("old", "kept", 1.0)))
    assert capsys.readouterr().err.splitlines() == [
        f"{'one':<30} failed   accuracy 50.00%  1 min 15 s  (0 of 2 done, 1 kept, 1 failed)"
    ]
