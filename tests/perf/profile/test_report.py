"""The profile's page: its blocks lie within each other, and hostile names stay text."""

import json
from pathlib import Path
from typing import Any

from tests.perf.profile.test_machine import MACHINE

from sixfold.core.run_directory import typed
from sixfold.perf.profile.report import flame, render, roofline
from sixfold.perf.profile.results import Profile, RankFigures
from sixfold.perf.profile.summary import summarise
from sixfold.perf.profile.utilisation import REASONS, Use


def rank(number: int = 0, name: str = "conv") -> RankFigures:
    """What a rank writes: one convolution of 10 MFLOP and 1 MB, 2 ms forward and 3 backward."""
    phases = {f"{p}_s": 0.0 for p in ("communication", "waiting", "update")}
    step = {"step": 1, "begin": 0.0, "samples": 8, "data_s": 0.001, "compute_s": 0.006, **phases}
    passes = {"forward_s": 0.002, "backward_s": 0.003, "around_s": 0.0005}
    plain = {**step, "kind": "plain", "whole_s": 0.0065}
    clock = {**step, "kind": "clock", "whole_s": 0.007, **passes}
    layer = {
        "name": name,
        "kind": "Conv2d",
        "counted": True,
        "forward_s": 0.002,
        "backward_s": 0.003,
        "around_s": 0.0,
        "forward_flops": 10_000_000,
        "backward_flops": 20_000_000,
        "forward_bytes": 1_000_000,
        "backward_bytes": 2_000_000,
        "kept_bytes": 1000,
        "parameters": 10,
        "output_shape": [8, 4, 4, 4],
        "unknown": [],
        "functions": [
            {"function": "aten::convolution", "direction": "forward", "seconds": 0.002, "calls": 1}
        ],
    }
    around = {"name": "(fold)", "forward_s": 0.0, "backward_s": 0.0, "around_s": 0.0005}
    memory = {"rank": number} | dict.fromkeys(
        (
            *("weights_bytes", "buffers_bytes", "optimizer_bytes", "gradients_bytes"),
            *("activations_bytes", "step_peak_bytes"),
            *("resident_before_bytes", "resident_peak_bytes"),
        ),
        1_000_000,
    )
    figures: dict[str, Any] = {
        "rank": number,
        "host": "here",
        "steps": [plain, clock],
        "shards": {"8": 1},
        "memory": memory,
        "layers": [layer, around],
    }
    return typed(RankFigures, figures)


def profile(name: str = "conv") -> Profile:
    summary = summarise([rank(0, name), rank(1, name)], MACHINE)
    return Profile(machine=MACHINE, images_per_s=100.0, **vars(summary))


def test_layers_stand_against_the_roofline_by_hand() -> None:
    conv = profile().layers[0].forward
    assert conv is not None
    # Two of four cores busy; 1 MB touched is two arrays of 0.5 MB: the line of 1 MB copies.
    peak = 100e9 + (80e9 - 100e9) / 3
    bandwidth = 20e9 + (10e9 - 20e9) / 3
    limit = max(10e6 / peak, 1e6 / bandwidth)
    assert conv.limit_s == limit
    assert conv.share == limit / 0.002
    assert conv.flops_per_s == 5e9
    assert conv.bound == ("compute" if 10e6 / peak > 1e6 / bandwidth else "memory")


def test_the_parts_of_a_step_add_up() -> None:
    step = profile().step
    assert step is not None
    names = ("forward", "backward", "around", "data", "communication", "waiting", "update")
    total = sum(step.part(name) for name in (*names, "unattributed"))
    assert abs(total - step.clock_s) < 1e-12
    assert abs(step.unattributed_s - 0.0005) < 1e-12
    assert abs(step.timing_costs_s - 0.0005) < 1e-12


def test_blocks_of_the_flame_lie_below_their_parents() -> None:
    blocks = flame(profile())
    for part, row, *_ in blocks:
        assert part.left >= 0
        assert part.left + part.width <= 100.01
        if row:
            assert any(
                row_above == row - 1
                and above.left - 0.01 <= part.left
                and part.left + part.width <= above.left + above.width + 0.01
                for above, row_above, *_ in blocks
            )
    assert {name for _, _, name, _ in blocks} >= {
        "forward",
        "conv",
        "convolution",
        "not attributed",
    }


def test_every_layer_is_on_the_roofline() -> None:
    chart = roofline(profile())
    assert chart is not None
    assert sorted(chart.hover["head"]) == ["conv backward", "conv forward"]
    assert chart.hover["at"] == sorted(chart.hover["at"])


def test_a_profile_is_read_again_as_it_was_written() -> None:
    plain = profile().as_plain()
    assert Profile.of(json.loads(json.dumps(plain))).as_plain() == plain
    assert "critical_path" not in plain


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    page = render(tmp_path, profile('<script>alert("x")</script>'))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_page_of_a_run_that_was_only_read(tmp_path: Path) -> None:
    spent = dict.fromkeys(REASONS, 1.0)
    use = Use(rank=0, host="here", steps=1, seconds=spent, in_steps=spent, cpu_share=None)
    page = render(tmp_path, Profile(utilisation=[use]))
    assert "rank 0" in page
    assert "Roofline" not in page
