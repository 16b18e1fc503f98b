"""The log as it grows: what is read, and what a restart's new file does not repeat."""

import json
from pathlib import Path
from typing import Any

from sixfold.core.run_directory import JsonLines
from sixfold.training.tracking.lines import MetricsFollower, flat, points_of, result_points


def line(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "time": 100.0 + step, "loss": 1 / step, **more}


def steps(follower: MetricsFollower, most: int = 100) -> list[int]:
    return [found["step"] for found in follower.read(most)]


def test_lines_are_read_once_and_only_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = MetricsFollower(path, {})
    assert steps(follower) == []
    path.write_text(json.dumps(line(1)) + "\n" + json.dumps(line(2)) + '\n{"step": 3, "ti')
    assert steps(follower, most=1) == [1]
    assert steps(follower) == [2]
    with path.open("a") as file:
        file.write('me": 5}\nnot JSON\n{"step": 4}\n' + json.dumps(line(5)) + "\n")
    assert steps(follower) == [3, 5]
    follower.close()


def test_a_restart_repeats_nothing(tmp_path: Path) -> None:
    path, sent = tmp_path / "metrics.jsonl", dict[str, int]()
    log = JsonLines(path, up_to_step=0)
    log.append(line(1), line(2), line(2, part="test"), line(3))
    follower = MetricsFollower(path, sent)
    assert steps(follower) == [1, 2, 2, 3]
    sent |= {"train": 3, "test": 2}
    log.append(line(4))
    again = JsonLines(path, up_to_step=2)
    again.append(line(3), line(3, part="test"), line(4), line(5))
    # Step 4 comes from the old file, which was read to its end.
    assert [(f["step"], f.get("part")) for f in follower.read(1)] == [(4, None)]
    sent |= {"train": 4}
    assert [(f["step"], f.get("part")) for f in follower.read(9)] == [(3, "test"), (5, None)]
    for opened in (log, again, follower):
        opened.close()


def test_numbers_of_lines_by_name() -> None:
    train = line(2, lr=0.1, accuracy=None, note="text", images=4)
    assert {(p.name, p.value) for p in points_of(train)} == {
        ("train/loss", 0.5),
        ("train/lr", 0.1),
        ("train/images", 4.0),
    }
    evaluated = {"step": 3, "time": 9.0, "epoch": 1.0, "part": "validation", "eval_loss": 0.25}
    (point, seconds) = points_of({**evaluated, "eval_s": 2.0})
    assert (seconds.name, seconds.value) == ("validation/eval_s", 2.0)
    assert (point.name, point.value, point.step, point.time) == ("validation/loss", 0.25, 3, 9.0)
    (logged,) = points_of({"step": 3, "time": 9.0, "logged": {"seen": 7}})
    assert (logged.name, logged.value) == ("logged/seen", 7.0)


def test_results_and_settings() -> None:
    result = {"steps": 5, "test_accuracy": 0.5, "engine": "local", "done": True, "views": [1]}
    points = result_points({**result, "none": None, "bad": float("nan")}, time=1.0)
    assert {(p.name, p.value, p.step) for p in points} == {
        ("result/steps", 5.0, 5),
        ("result/test_accuracy", 0.5, 5),
    }
    assert {p.step for p in result_points({**result, "rounds": 3}, time=1.0)} == {3}
    nested = {"optimizer": {"lr": 0.1, "lr_group": ["a=1"]}, "run": {"out": None, "tags": []}}
    assert flat(nested) == {"lr": 0.1, "lr_group": '["a=1"]', "out": "", "tags": ""}
