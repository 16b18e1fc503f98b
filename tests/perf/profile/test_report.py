"""The profile's page: its blocks lie within each other, and hostile names stay text."""

from pathlib import Path
from typing import Any

from tests.perf.profile.test_machine import MACHINE

from sixfold.perf.profile.report import flame, render, roofline
from sixfold.perf.profile.summary import summarise


def rank(number: int = 0, name: str = "conv") -> dict[str, Any]:
    """What a rank writes: one convolution of 10 MFLOP and 1 MB, 2 ms forward and 3 backward."""
    phases = {f"{p}_s": 0.0 for p in ("communication", "waiting", "update")}
    step = {"step": 1, "begin": 0.0, "samples": 8, "data_s": 0.001, "compute_s": 0.006, **phases}
    passes = {"forward_s": 0.002, "backward_s": 0.003, "around_s": 0.0005}
    plain = {**step, "kind": "plain", "whole_s": 0.0065}
    clock = {**step, "kind": "clock", "whole_s": 0.007, **passes}
    layer = {
        "name": name,
        "kind": "Conv2d",
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
    memory = dict.fromkeys(
        (
            *("weights_bytes", "buffers_bytes", "optimizer_bytes", "gradients_bytes"),
            *("activations_bytes", "step_peak_bytes"),
            *("resident_before_bytes", "resident_peak_bytes"),
        ),
        1_000_000,
    )
    return {
        "rank": number,
        "host": "here",
        "steps": [plain, clock],
        "shards": {"8": 1},
        "memory": memory,
        "layers": [layer, around | {"functions": []}],
        "spans": [],
    }


def profile(name: str = "conv") -> dict[str, Any]:
    import dataclasses
    import json

    plain = json.loads(json.dumps(dataclasses.asdict(MACHINE)))
    summary = summarise([rank(0, name), rank(1, name)], MACHINE)
    return {"machine": plain, "images_per_s": 100.0, "gpus": [], **summary}


def test_layers_stand_against_the_roofline_by_hand() -> None:
    conv = profile()["layers"][0]
    # Two of four cores busy; 1 MB touched is two arrays of 0.5 MB: the line of 1 MB copies.
    peak = 100e9 + (80e9 - 100e9) / 3
    bandwidth = 20e9 + (10e9 - 20e9) / 3
    limit = max(10e6 / peak, 1e6 / bandwidth)
    assert conv["forward_limit_s"] == limit
    assert conv["forward_share"] == limit / 0.002
    assert conv["forward_flops_per_s"] == 5e9
    assert conv["forward_bound"] == ("compute" if 10e6 / peak > 1e6 / bandwidth else "memory")


def test_the_parts_of_a_step_add_up() -> None:
    step = profile()["step"]
    names = ("forward", "backward", "around", "data", "communication", "waiting", "update")
    total = sum(step[f"{name}_s"] for name in (*names, "unattributed"))
    assert abs(total - step["clock_s"]) < 1e-12
    assert abs(step["unattributed_s"] - 0.0005) < 1e-12
    assert abs(step["timing_costs_s"] - 0.0005) < 1e-12


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


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    page = render(tmp_path, profile('<script>alert("x")</script>'))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_page_of_a_run_that_was_only_read(tmp_path: Path) -> None:
    use = {
        "rank": 0,
        "host": "here",
        "steps": 1,
        "seconds": {},
        "in_steps": {},
        "cpu_share": None,
    }
    from sixfold.perf.profile.utilisation import REASONS

    use |= {"seconds": dict.fromkeys(REASONS, 1.0), "in_steps": dict.fromkeys(REASONS, 1.0)}
    page = render(tmp_path, {"utilisation": [use], "startup": {}, "gpus": []})
    assert "rank 0" in page
    assert "Roofline" not in page
