"""Where ranks' time went: worked out by hand from time lines, whole or damaged."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sixfold.core.errors import UserError
from sixfold.perf.profile.timelines import read_timelines
from sixfold.perf.profile.trace import trace_events
from sixfold.perf.profile.utilisation import REASONS, Use, notes_on, startup_parts, utilisation


def write(path: Path, ranks: list[list[dict[str, Any]]], hosts: list[str] | None = None) -> Path:
    """A run directory with these steps; launched at 100, called at 101, ready at 104."""
    folder = path / "timeline"
    folder.mkdir(parents=True)
    for rank, lines in enumerate(ranks):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"rank-{rank:04d}.jsonl").write_text(text)
        host = hosts[rank] if hosts else "here"
        facts = {"rank": rank, "host": host, "pid": 10 + rank, "entered": 103.0, "ready": 104.0}
        (folder / f"rank-{rank:04d}.json").write_text(json.dumps(facts))
    (folder / "launcher.json").write_text('{"launched": 100.0, "called": 101.0, "pid": 9}')
    return path


def step(
    number: int, begin: float, compute: float, exchanged: float, **more: Any
) -> dict[str, Any]:
    """A step that computes, then exchanges; a tenth of the exchange counted as communication."""
    return {
        "step": number,
        "begin": begin,
        "arrived_s": compute,
        "exchanges": 2,
        "compute_s": compute,
        "communication_s": 0.1 * exchanged,
        "waiting_s": 0.9 * exchanged,
        "data_s": 0.0,
        "update_s": 0.0,
        "cpu_s": compute,
    } | more


def test_waiting_for_the_slowest_is_told_from_transfer(tmp_path: Path) -> None:
    fast = [step(1, 105.0, 1.0, 2.5), step(2, 108.5, 1.0, 0.5)]
    slow = [step(1, 105.0, 3.0, 0.5), step(2, 108.5, 1.0, 0.5)]
    lines = read_timelines(write(tmp_path, [fast, slow]))
    first, second = utilisation(lines)
    assert first.seconds["straggler"] == pytest.approx(2.0)
    assert first.seconds["communication"] == pytest.approx(1.0)
    assert second.seconds["straggler"] == pytest.approx(0.0)
    assert second.seconds["communication"] == pytest.approx(1.0)
    assert first.seconds["compute"] == pytest.approx(2.0)
    assert first.seconds["startup"] == pytest.approx(5.0)
    assert first.seconds["between"] == pytest.approx(0.0)
    assert sum(first.seconds.values()) == pytest.approx(110.0 - 100.0)
    assert first.cpu_share == pytest.approx(2.0 / 5.0)


def test_exchanges_in_the_middle_of_a_step_go_by_what_the_link_says(tmp_path: Path) -> None:
    many = [step(1, 105.0, 0.1, 2.0, exchanges=40)]
    other = [step(1, 105.0, 0.5, 2.0, exchanges=40)]
    first, _ = utilisation(read_timelines(write(tmp_path, [many, other])))
    assert first.seconds["straggler"] == pytest.approx(1.8)
    assert first.seconds["communication"] == pytest.approx(0.2)


def test_clocks_of_several_hosts_are_brought_together(tmp_path: Path) -> None:
    fast = [step(n, 105.0 + 4 * n, 1.0, 2.5) for n in range(1, 4)]
    slow = [step(n, 205.0 + 4 * n, 3.0, 0.5) for n in range(1, 4)]  # 100 s fast
    lines = read_timelines(write(tmp_path, [fast, slow], hosts=["here", "there"]))
    first, second = utilisation(lines)
    assert first.seconds["straggler"] == pytest.approx(6.0)
    assert second.seconds["straggler"] == pytest.approx(0.0)


def test_what_is_between_steps_and_waits_for_work(tmp_path: Path) -> None:
    lines = [step(1, 105.0, 1.0, 0.0), step(2, 110.0, 1.0, 0.0, scheduler_s=0.5)]
    (use,) = utilisation(read_timelines(write(tmp_path, [lines])))
    assert use.seconds["between"] == pytest.approx(4.0)
    assert use.seconds["scheduler"] == pytest.approx(0.5)
    assert set(use.seconds) == set(REASONS)


def test_start_up_in_parts(tmp_path: Path) -> None:
    parts = startup_parts(read_timelines(write(tmp_path, [[step(1, 105.0, 1.0, 0.0)]])))
    assert list(parts.values()) == pytest.approx([1.0, 2.0, 1.0, 1.0])


def test_a_run_from_before_steps_had_a_beginning(tmp_path: Path) -> None:
    old = {"step": 1, "compute_s": 1.0, "data_s": 0.5, "waiting_s": 0.25}
    write(tmp_path, [[old, {"step": 2, "compute_s": 1.0}]])
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "time": 110.0, "loss": 1}\n{"step": 2, "time": 112.0, "loss": 1}\n'
    )
    lines = read_timelines(tmp_path)
    assert lines.ranks[0].steps[0].begin == pytest.approx(108.25)
    (use,) = utilisation(lines)
    assert use.seconds["straggler"] == pytest.approx(0.25)
    assert use.cpu_share is None


def test_damaged_files_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, [[step(1, 105.0, 1.0, 0.0)]])
    file = tmp_path / "timeline" / "rank-0000.jsonl"
    nan = '{"step": 2, "begin": NaN, "compute_s": -1}\n'
    file.write_text(file.read_text() + nan + '{"step": 3, "beg\n[1]\n{"no": 1}\n')
    (tmp_path / "timeline" / "rank-0000.json").write_text("{")
    (tmp_path / "timeline" / "launcher.json").write_text("[]")
    lines = read_timelines(tmp_path)
    assert len(lines.ranks[0].steps) == 1
    assert lines.skipped == 4
    assert isinstance(utilisation(lines)[0], Use)
    assert startup_parts(lines) == {}
    assert trace_events(lines)


def test_a_directory_without_time_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no timeline"):
        read_timelines(tmp_path)


def test_the_trace_holds_all_ranks_on_one_clock(tmp_path: Path) -> None:
    fast = [step(1, 105.0, 1.0, 2.5, data_s=0.25, compute_s=0.75)]
    slow = [step(1, 105.0, 3.0, 0.5)]
    lines = read_timelines(write(tmp_path, [fast, slow]))
    layers = {
        0: [("conv", "forward", "", 105.2, 105.4), ("conv", "forward", "aten::x", 105.3, 105.4)]
    }
    samples = {
        "processes": {"9": "python", "10": "python", "77": "java"},
        "processors": [[105.0, {"9": 0.1, "10": 0.9, "77": 0.5}]],
        "gpus": [[105.0, {"0": [0.5, 1024]}]],
    }
    events = trace_events(lines, layers, samples)
    json.dumps(events)
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names[1] == "rank 0 on here, pid 10"
    assert names[2] == "rank 1 on here, pid 11"
    assert "launcher" in names[1_000_000]
    phases = [e for e in events if e.get("pid") == 1 and e.get("tid") == 2 and e["ph"] == "X"]
    assert [e["name"] for e in phases] == ["data", "compute", "straggler", "communication"]
    starts = [e["ts"] for e in phases]
    assert starts == pytest.approx([5e6, 5.25e6, 6e6, 8e6])
    assert all(a["ts"] + a["dur"] <= b["ts"] + 1 for a, b in pairwise(phases))
    watched = [e for e in events if e.get("tid") == 3 and e["ph"] == "X"]
    assert [e["name"] for e in watched] == ["conv forward", "aten::x"]
    use = next(e for e in events if e["name"] == "processors in use")
    assert use["args"] == {"launcher": 0.1, "rank 0": 0.9, "java": 0.5}
    assert all({"name", "ph", "pid"} <= event.keys() for event in events)
    assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")


def test_ranks_that_had_too_little_of_a_processor_are_named(tmp_path: Path) -> None:
    poor = [step(1, 105.0, 2.0, 0.5, cpu_s=0.5)]
    rich = [step(1, 105.0, 2.0, 0.5, cpu_s=1.99)]
    (note,) = notes_on(utilisation(read_timelines(write(tmp_path, [poor, rich]))))
    assert "rank 0 (25%)" in note
    assert "1 (" not in note


def test_a_later_start_says_nothing_of_steps_made_before(tmp_path: Path) -> None:
    lines = read_timelines(write(tmp_path, [[step(1, 102.0, 1.0, 0.0)]]))  # called at 103
    assert lines.ranks[0].entered is None
    (use,) = utilisation(lines)
    assert use.seconds["startup"] == pytest.approx(2.0)
