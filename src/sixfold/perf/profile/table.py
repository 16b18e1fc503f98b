"""A profile as text: the tables that the terminal shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sixfold.core.console.tables import aligned
from sixfold.perf.profile.utilisation import REASONS

Plain = dict[str, Any]

REASON_NAMES = {
    "startup": "start-up",
    "communication": "transfer",
    "between": "between steps",
}


STEP_NAMES = {
    "forward": "layers forward (loss included)",
    "backward": "layers backward",
    "around": "around layers (layout, fold)",
    "data": "waiting for data",
    "waiting": "waiting for ranks",
    "communication": "transfer",
    "update": "update of the weights",
    "unattributed": "not attributed",
}
"""Parts of a step."""


def layer_rows(profile: Plain) -> list[list[str]]:
    """Every layer: time, work, rates, and how near it is to the machine's roofline."""
    head = ["layer", "kind", "output", "fwd ms", "bwd ms", "step %", "MFLOP", "MB", "GFLOP/s"]
    head += ["GB/s", "roof fwd", "roof bwd", "kept MB"]
    whole = profile["step"]["clock_s"]
    rows = [head]
    for layer in profile["layers"]:
        seconds = layer["forward_s"] + layer["backward_s"] + layer["around_s"]
        flops = layer.get("forward_flops", 0) + layer.get("backward_flops", 0)
        moved = layer.get("forward_bytes", 0) + layer.get("backward_bytes", 0)
        passes = layer["forward_s"] + layer["backward_s"]
        has_cost = "forward_flops" in layer
        rows.append(
            [
                layer["name"] + ("*" if layer.get("unknown") else ""),
                layer.get("kind", ""),
                "x".join(map(str, layer.get("output_shape", [])[1:])),
                _ms(layer["forward_s"] + layer["around_s"]),
                _ms(layer["backward_s"]),
                f"{100 * seconds / whole:.1f}" if whole > 0 else "",
                f"{flops / 1e6:.1f}" if has_cost else "",
                f"{moved / 1e6:.2f}" if has_cost else "",
                f"{flops / passes / 1e9:.1f}" if has_cost and flops and passes > 0 else "",
                f"{moved / passes / 1e9:.1f}" if has_cost and moved and passes > 0 else "",
                _percent(layer.get("forward_share")),
                _percent(layer.get("backward_share")),
                f"{layer['kept_bytes'] / 1e6:.2f}" if has_cost else "",
            ]
        )
    return rows


def layer_table(profile: Plain) -> list[str]:
    """`layer_rows` as text, and what was not known."""
    lines = aligned(layer_rows(profile), range(3))
    unknown = sorted({name for layer in profile["layers"] for name in layer.get("unknown", [])})
    if unknown:
        lines.append(f"* counted as element by element: {', '.join(unknown)}")
    return lines


def step_table(profile: Plain) -> list[str]:
    """Where a step's time goes, down to what is not attributed."""
    step = profile["step"]
    whole = step["clock_s"]
    rows = [["a step whose layers are timed", "ms", "%"]]
    for name, words in STEP_NAMES.items():
        seconds = step[f"{name}_s"]
        rows.append([words, _ms(seconds), f"{100 * seconds / whole:.1f}" if whole > 0 else ""])
    rows.append(["together", _ms(whole), "100.0"])
    plain = step["plain_s"]
    extra = 100 * step["timing_costs_s"] / plain if plain > 0 else 0.0
    rows.append(["a plain step", _ms(plain), ""])
    rows.append(["what timing costs", _ms(step["timing_costs_s"]), f"{extra:.1f} of plain"])
    return aligned(rows)


def operator_rows(profile: Plain, most: int = 16) -> list[list[str]]:
    """The operators that take most, over all layers, in the step in which they were timed."""
    sums: dict[tuple[str, str], list[float]] = {}
    for layer in profile["layers"]:
        for entry in layer["functions"]:
            name = entry["function"] or "(calls)"
            into = sums.setdefault((name, entry["direction"]), [0.0, 0.0])
            into[0] += entry["seconds"]
            into[1] += entry["calls"]
    whole = sum(seconds for seconds, _ in sums.values())
    rows = [["operator", "pass", "calls", "ms", "%"]]
    for (name, direction), (seconds, calls) in sorted(sums.items(), key=lambda it: -it[1][0])[
        :most
    ]:
        share = 100 * seconds / whole if whole > 0 else 0.0
        rows.append([name, direction, f"{calls:.0f}", _ms(seconds), f"{share:.1f}"])
    return rows


def memory_rows(profile: Plain) -> list[list[str]]:
    """What each rank holds, accounted by kind, and measured peaks."""
    head = ["rank", "weights", "gradients", "optimizer", "activations", "accounted"]
    head += ["step's peak", "process before", "process peak"]
    rows = [head]
    for memory in profile["memory"]:
        parts = [memory[f"{n}_bytes"] for n in ("weights", "gradients", "optimizer", "activations")]
        parts.append(sum(parts) + memory["buffers_bytes"])
        measured = ("step_peak_bytes", "resident_before_bytes", "resident_peak_bytes")
        parts += [memory[name] for name in measured]
        rows.append([str(memory["rank"]), *(f"{part / 1e6:,.1f} MB" for part in parts)])
    return rows


def use_table(uses: Sequence[Plain]) -> list[str]:
    """Where each rank's time went, in percent of the time since the launch."""
    rows = [
        ["rank", *(REASON_NAMES.get(name, name) for name in REASONS), "total s", "CPU in steps"]
    ]
    for use in uses:
        whole = sum(use["seconds"].values())
        shares = [use["seconds"][name] / whole if whole > 0 else 0.0 for name in REASONS]
        cpu = "" if use["cpu_share"] is None else f"{100 * use['cpu_share']:.0f}%"
        rows.append([str(use["rank"]), *(f"{100 * s:.1f}%" for s in shares), f"{whole:.2f}", cpu])
    return aligned(rows)


def startup_lines(startup: Plain) -> list[str]:
    """What start-up consisted of."""
    if not startup:
        return []
    return aligned([["start-up", "s"], *([name, f"{s:.2f}"] for name, s in startup.items())])


def beside_rows(profile: Plain) -> list[list[str]]:
    """The same training on several engines, and on a GPU where there is one."""
    sides: Plain = profile["sides"]
    good = {name: side for name, side in sides.items() if "failed" not in side}
    rows = [["", *sides, "GPU"]]

    def row(name: str, value: Any) -> None:
        cells = [value(good[engine]) if engine in good else "failed" for engine in sides]
        rows.append([name, *cells, "" if len(rows) > 1 else gpu])

    gpu = "none" if not profile["gpus"] else "not used"
    row("workers", lambda side: str(side["workers"]))
    row("images/s", lambda side: f"{side['images_per_s']:,.0f}" if side["images_per_s"] else "")
    row("step ms", lambda side: _ms(side["step"]["plain_s"]))
    row("forward ms", lambda side: _ms(side["step"]["forward_s"]))
    row("backward ms", lambda side: _ms(side["step"]["backward_s"]))
    row("data ms", lambda side: _ms(side["step"]["data_s"]))
    row("transfer ms", lambda side: _ms(side["step"]["communication_s"]))
    row("waiting ms", lambda side: _ms(side["step"]["waiting_s"]))
    row("start-up s", lambda side: f"{side['utilisation'][0]['seconds']['startup']:.2f}")
    row("roofline forward", lambda side: _percent(side["totals"]["forward_share"]))
    row("roofline backward", lambda side: _percent(side["totals"]["backward_share"]))
    row("peak of a rank", lambda side: _megabytes(side["memory"][0]["resident_peak_bytes"]))
    return rows


def machine_rows(machine: Plain) -> list[list[str]]:
    """The machine's limits."""
    rows = [["limit", "one core", "all cores"]]
    for rate in machine["products"]:
        one, together = rate["one_core_flops"], rate["all_cores_flops"]
        name = f"matrix product {rate['precision']}"
        rows.append([name, f"{one / 1e9:,.0f} GFLOP/s", f"{together / 1e9:,.0f} GFLOP/s"])
    for rate in machine["copies"]:
        one, together = rate["one_core_bytes"], rate["all_cores_bytes"]
        name = f"copy of {size_text(rate['array_bytes'])}"
        rows.append([name, f"{one / 1e9:,.1f} GB/s", f"{together / 1e9:,.1f} GB/s"])
    return rows


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3f}" if seconds < 0.01 else f"{1000 * seconds:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def size_text(count: int) -> str:
    """A size in memory's units."""
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} KB"
