"""The whole report: that it renders whatever the directory holds, and says what it should."""

from __future__ import annotations

import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.training.report import write_report

MakeRun = Any

VOID = {"meta", "img", "br", "line", "path", "link", "input", "hr"}


class Checker(HTMLParser):
    """Collects tags, text and attributes, and insists that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif "style" not in self.open:
            self.text += data


def check(path: Path) -> Checker:
    page = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    for tag, attributes in checker.tags:
        assert not {name for name in attributes if name.startswith("on")}, attributes
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
        if tag == "path":
            assert "nan" not in str(attributes["d"])
            assert "inf" not in str(attributes["d"])
    ids = [a["id"] for _, a in checker.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert "http://" not in page
    assert "https://" not in page
    for text in checker.scripts[:-1]:
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    return checker


def gray(indices: Any) -> NDArray[np.uint8]:
    return np.stack([np.full((1, 28, 28), int(i) % 256, np.uint8) for i in indices])


def test_a_finished_run_shows_everything(make_run: MakeRun) -> None:
    run = make_run()
    path = write_report(run, images=gray)
    assert path == run / "report.html"
    page = check(path)
    for words in (
        "Test accuracy", "Top-5 accuracy", "Validation accuracy", "Test loss", "3,288",
        "Loss", "Accuracy by class", "Confusion matrix", "Most frequent confusions",
        "Worst mistakes", "Where the time went", "rank 1", "waiting for data", "Throughput",
        "Configuration", "--batch-size", "Versions", "2.13.0", "9f2c9f2c", "84,362",
    ):  # fmt: skip
        assert words in page.text, words
    assert "Balanced accuracy" not in page.text  # All classes have as many images.
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 32
    assert all(picture["alt"] for picture in pictures)
    assert path.stat().st_size < 500_000


def test_uneven_classes_show_balanced_accuracy(make_run: MakeRun) -> None:
    run = make_run(classes=("RBC", "WBC", "platelets"), images_per_class=(84, 7, 9))
    assert "Balanced accuracy" in check(write_report(run)).text


def test_the_same_run_gives_the_same_bytes(make_run: MakeRun) -> None:
    run = make_run(steps=50)
    first = write_report(run, images=gray).read_bytes()
    assert write_report(run, images=gray).read_bytes() == first


@pytest.mark.parametrize("gone", ["config.json", "metrics.jsonl", "timeline", "result.json"])
def test_any_part_may_be_missing(make_run: MakeRun, gone: str) -> None:
    run = make_run(steps=30)
    path = run / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = check(write_report(run, images=gray))
    said = {"result.json": "This run has no result", "timeline": "There is no timeline"}
    assert said.get(gone, f"{gone} is missing") in page.text


@pytest.mark.parametrize("lines", [["rank 1 died: killed", "  its log"], [], "text", None, [3]])
def test_a_failed_run_says_why(make_run: MakeRun, lines: object) -> None:
    run = make_run(steps=30)
    (run / "result.json").unlink()
    (run / "failure.json").write_text(json.dumps({"lines": lines}))
    page = check(write_report(run, images=gray))
    assert "This run has no result" in page.text
    if isinstance(lines, list):
        assert all(str(line).strip() in page.text for line in lines)


@pytest.mark.parametrize("gone", ["config.json", "metrics.jsonl", "result.json"])
@pytest.mark.parametrize("junk", [b"", b"\xff\xfe\x00{[", b"[1, 2", b"null", b"[" * 5000])
def test_any_file_may_be_damaged(make_run: MakeRun, gone: str, junk: bytes) -> None:
    run = make_run(steps=30)
    (run / gone).write_bytes(junk)
    page = check(write_report(run, images=gray))
    assert gone in page.text


def test_a_killed_run_says_how_far_it_came(make_run: MakeRun) -> None:
    run = make_run(steps=120, finished=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 121, "time": 17600')
    page = check(write_report(run))
    assert "The last logged step is 120 of 120." in page.text
    assert "1 line of metrics.jsonl could not be read" in page.text
    assert "not finished" in page.text


def test_one_step_no_steps_and_a_run_without_ranks(make_run: MakeRun, tmp_path: Path) -> None:
    check(write_report(make_run(steps=1, ranks=1, validation=False), images=gray))
    shutil.rmtree(tmp_path / "run")
    page = check(write_report(make_run(steps=0, ranks=0), images=gray))
    assert "metrics.jsonl is empty" in page.text


def test_losses_that_are_no_numbers_are_counted_and_break_the_curve(make_run: MakeRun) -> None:
    run = make_run(steps=40)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    for k in (5, 6):  # Steps, not evaluations.
        entries[k]["loss"] = [float("nan"), float("inf"), "high"][k % 3]
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (run / "metrics.jsonl").write_text(text)
    page = check(write_report(run))
    assert "The loss is not a finite number at 2 logged steps" in page.text


def test_nothing_but_nan(make_run: MakeRun) -> None:
    run = make_run(steps=0)
    lines = [{"step": k, "time": None, "loss": float("nan")} for k in range(1, 5)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    check(write_report(run))


def test_a_class_without_images_is_named(make_run: MakeRun) -> None:
    run = make_run(classes=("cat", "dog", "unicorn"), images_per_class=(50, 40, 0))
    page = check(write_report(run))
    assert "Classes without test images: unicorn" in page.text
    assert "no images" in page.text


@pytest.mark.parametrize("classes", [1, 3, 13, 24, 25, 100, 201])
def test_any_number_of_classes(make_run: MakeRun, classes: int) -> None:
    names = tuple(f"c{k}" for k in range(classes))
    run = make_run(steps=20, classes=names, images_per_class=(20, 7))
    page = check(write_report(run, images=gray))
    assert ("Confusion matrix" in page.text) == (classes <= 200)
    assert ("worst of" in page.text) == (classes > 40)


def test_names_from_users_cannot_become_markup(make_run: MakeRun) -> None:
    evil = '<script>alert(1)</script><img src="x" onerror="alert(2)">'
    names = (evil, "'\"><svg onload=alert(3)>", "</script><b>", "{{ 7*7 }}", "a\u202eb\x00\x1bc")
    run = make_run(steps=20, classes=(*names, *(f"n{k}" for k in range(25))))
    result = json.loads((run / "result.json").read_text())
    result["bad_files"] = [f"/data/{evil}.png: truncated", "\ud800 half a surrogate"]
    result["engine"], result["versions"] = evil, {evil: evil}
    result["worst"][0] |= {"name": evil, "label": evil, "predicted": evil}
    (run / "result.json").write_text(json.dumps(result))
    config = json.loads((run / "config.json").read_text())
    config[evil] = {evil: evil}
    config["data"]["data"] = f"folder:{evil}"
    (run / "config.json").write_text(json.dumps(config))
    page = check(write_report(run, images=gray))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == len(page.scripts)
    assert "<script>alert(1)</script>" in page.text  # Shown, not run.
    assert "{{ 7*7 }}" in page.text
    assert "\u202e" not in page.text


def test_only_the_reports_own_script_may_run(make_run: MakeRun) -> None:
    import base64
    import hashlib

    page = check(write_report(make_run(steps=5)))
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_passwords_are_hidden(make_run: MakeRun) -> None:
    text = write_report(make_run(steps=5)).read_text()
    assert "hunter2" not in text
    assert "spark.ssl.keyPassword=(hidden)" in text


def test_only_changed_settings_are_highlighted(make_run: MakeRun) -> None:
    text = write_report(make_run(steps=5)).read_text()
    changed = set(re.findall(r'<tr class="changed"><th[^>]*><code>([^<]*)', text))
    assert {"--lr", "--schedule", "--batch-size", "--workers"} <= changed
    assert not changed & {"--momentum", "--optimizer", "--seed", "--out", "--model-args"}


def test_restarts_and_skipped_files_are_told(make_run: MakeRun) -> None:
    run = make_run(steps=20)
    result = json.loads((run / "result.json").read_text())
    result |= {"restarts": 2, "bad_files": [f"img/{k}.png: truncated" for k in range(500)]}
    (run / "result.json").write_text(json.dumps(result))
    page = check(write_report(run))
    assert "restarted 2 times" in page.text
    assert "img/199.png: truncated" in page.text
    assert "img/200.png" not in page.text
    assert "and 300 more" in page.text


def test_what_killed_servers_and_workers_cost_is_told(make_run: MakeRun) -> None:
    run = make_run()
    result = json.loads((run / "result.json").read_text())
    result |= {"restarts": 4, "server_losses": [{"server": 1}], "lost_updates": 17}
    (run / "result.json").write_text(json.dumps(result))
    text = check(write_report(run)).text
    assert "3 workers and 1 parameter server died and were replaced" in text
    assert "17 updates of a server" in text


def test_pictures_that_cannot_be_read_are_told(make_run: MakeRun) -> None:
    def gone(indices: Any) -> NDArray[np.uint8]:
        raise OSError("the disk is gone")

    page = check(write_report(make_run(steps=5), images=gone))
    assert "could not be read: the disk is gone" in page.text
    assert "Worst mistakes" in page.text


def test_not_a_run_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run directory"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not a run directory: it holds none of"):
        write_report(tmp_path)


def test_many_steps_are_fast_and_small(make_run: MakeRun) -> None:
    run = make_run(steps=30_000, ranks=0)
    start = time.process_time()
    path = write_report(run, images=gray)
    assert time.process_time() - start < 30  # half a second, unless the work grows with steps
    assert path.stat().st_size < 1_000_000
    check(path)


@pytest.mark.parametrize(
    ("trainable", "told"),
    [(84362, "all trainable"), (4362, "4,362 trainable, 80,000 frozen"), (None, "")],
)
def test_frozen_parameters_are_not_called_trainable(
    make_run: MakeRun, trainable: int | None, told: str
) -> None:
    run = make_run()
    file = run / "result.json"
    result = json.loads(file.read_text())
    result.pop("trainable_parameters", None)
    file.write_text(json.dumps(result | ({"trainable_parameters": trainable} if trainable else {})))
    text = check(write_report(run)).text
    assert told in text
    assert ("trainable" in text) == bool(told)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
result_names = st.sampled_from(
    [
        "test_accuracy", "test_loss", "per_class", "confusion", "worst", "workers", "restarts",
        "versions", "bad_files", "weights_sha256", "engine", "steps", "wall_s", "parameters",
        "top5_accuracy", "train_images_per_s", "best_step", "balanced_accuracy",
    ]
)  # fmt: skip
line_names = st.sampled_from(
    [
        "step", "time", "epoch", "loss", "accuracy", "lr", "images_per_s", "part", "eval_loss",
        "eval_accuracy",
    ]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    result=st.dictionaries(result_names, values),
    lines=st.lists(st.dictionaries(line_names, values | st.integers(0, 9)), max_size=12),
    config=st.dictionaries(
        st.sampled_from(["data", "model", "engine", "x"]),
        st.dictionaries(st.sampled_from(["data", "model", "engine", "workers"]), values) | values,
    ),
    times=st.lists(
        st.fixed_dictionaries({"step": st.integers(0, 9) | values, "data_s": values}), max_size=5
    ),
)
def test_values_of_any_kind_do_not_stop_it(
    tmp_path: Path, result: Any, lines: Any, config: Any, times: Any
) -> None:
    run = tmp_path / "any"
    (run / "timeline").mkdir(parents=True, exist_ok=True)
    (run / "result.json").write_text(json.dumps(result))
    (run / "config.json").write_text(json.dumps(config))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    name = "rank-0000.jsonl"
    (run / "timeline" / name).write_text("".join(json.dumps(line) + "\n" for line in times))
    check(write_report(run, images=gray))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    losses=st.lists(st.floats(), min_size=1, max_size=30),
    steps=st.lists(st.integers(-3, 10**18), min_size=30, max_size=30),
    times=st.lists(st.floats(), min_size=30, max_size=30),
)
def test_numbers_of_any_size_do_not_stop_it(
    tmp_path: Path, losses: list[float], steps: list[int], times: list[float]
) -> None:
    run = tmp_path / "numbers"
    run.mkdir(exist_ok=True)
    rows = zip(steps, losses, times, strict=False)
    lines = [
        {"step": s, "loss": v, "lr": v, "accuracy": v, "images_per_s": v, "time": t, "epoch": v}
        for s, v, t in rows
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    check(write_report(run))


def test_notebooks_get_the_charts_of_the_page(make_run: MakeRun) -> None:
    import sixfold

    found = sixfold.figures(make_run(steps=20))
    assert {"loss", "accuracy", "throughput", "rank-0"} <= found.keys()
    assert len(found["loss"].data[0].x)
