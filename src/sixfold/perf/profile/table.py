"""The tables of a profile, for its page and for the terminal."""

from collections.abc import Mapping, Sequence

from sixfold.core.html.page import Table
from sixfold.perf.profile.limits import Machine
from sixfold.perf.profile.results import Layer, Profile, StepTimes
from sixfold.perf.profile.utilisation import REASONS, Use

REASON_NAMES = {"startup": "start-up", "communication": "transfer", "between": "between steps"}

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

_LAYER_HEAD = ("layer", "kind", "output", "fwd ms", "bwd ms", "step %", "MFLOP", "MB", "GFLOP/s")
_MEMORY_HEAD = ("rank", "weights", "gradients", "optimizer", "activations", "accounted")


def layers(profile: Profile, step: StepTimes) -> Table:
    """Every layer: time, work, rates, and how near it is to the machine's roofline."""
    return Table(
        head=(*_LAYER_HEAD, "GB/s", "roof fwd", "roof bwd", "kept MB"),
        rows=[_layer(layer, step.clock_s) for layer in profile.layers],
        texts=range(3),
    )


def _layer(layer: Layer, whole: float) -> list[str]:
    flops = layer.forward_flops + layer.backward_flops
    moved = layer.forward_bytes + layer.backward_bytes
    passes = layer.forward_s + layer.backward_s
    known = layer.counted
    timed = known and passes > 0
    return [
        layer.name + ("*" if layer.unknown else ""),
        layer.kind,
        "x".join(map(str, layer.output_shape[1:])),
        _ms(layer.forward_s + layer.around_s),
        _ms(layer.backward_s),
        f"{100 * (passes + layer.around_s) / whole:.1f}" if whole > 0 else "",
        f"{flops / 1e6:.1f}" if known else "",
        f"{moved / 1e6:.2f}" if known else "",
        f"{flops / passes / 1e9:.1f}" if timed and flops else "",
        f"{moved / passes / 1e9:.1f}" if timed and moved else "",
        _percent(layer.forward.share if layer.forward else None),
        _percent(layer.backward.share if layer.backward else None),
        f"{layer.kept_bytes / 1e6:.2f}" if known else "",
    ]


def step(times: StepTimes) -> Table:
    """Where a step's time goes, down to what is not attributed."""
    whole, plain, extra = times.clock_s, times.plain_s, times.timing_costs_s
    rows = []
    for name, words in STEP_NAMES.items():
        seconds = times.part(name)
        rows.append([words, _ms(seconds), f"{100 * seconds / whole:.1f}" if whole > 0 else ""])
    rows.append(["together", _ms(whole), "100.0"])
    rows.append(["a plain step", _ms(plain), ""])
    share = 100 * extra / plain if plain > 0 else 0.0
    rows.append(["what timing costs", _ms(extra), f"{share:.1f} of plain"])
    return Table(head=("a step whose layers are timed", "ms", "%"), rows=rows)


def critical_path(profile: Profile, most: int = 5) -> Table:
    """What makes a step as long as it is: whose work, and what is between them."""
    path = profile.critical_path
    if path is None:
        return Table(rows=[])
    whole = path.seconds
    parts = [(f"work of rank {own.rank}", own.seconds) for own in path.work_s]
    parts.append((f"transfer, {path.handovers} times from rank to rank", path.transfer_s))
    parts += [(f"  {own.layer}", own.seconds) for own in path.layers[:most]]
    rows = [
        [name, _ms(seconds), f"{100 * seconds / whole:.1f}" if whole > 0 else ""]
        for name, seconds in parts
    ]
    rows.append(["together", _ms(whole), "100.0"])
    rows.append(["exchanges overlapped by work", "", f"{100 * (profile.overlap or 0):.1f}"])
    return Table(head=(f"critical path of step {path.step}", "ms", "%"), rows=rows)


def operators(profile: Profile, most: int = 16) -> Table:
    """The operators that take most, over all layers, in the step in which they were timed."""
    sums: dict[tuple[str, str], list[float]] = {}
    for layer in profile.layers:
        for entry in layer.functions:
            name = entry.function or "(calls)"
            into = sums.setdefault((name, entry.direction), [0.0, 0.0])
            into[0] += entry.seconds
            into[1] += entry.calls
    whole = sum(seconds for seconds, _ in sums.values())
    largest = sorted(sums.items(), key=lambda item: -item[1][0])[:most]
    rows = []
    for (name, direction), (seconds, calls) in largest:
        share = 100 * seconds / whole if whole > 0 else 0.0
        rows.append([name, direction, f"{calls:.0f}", _ms(seconds), f"{share:.1f}"])
    return Table(head=("operator", "pass", "calls", "ms", "%"), rows=rows, texts=(0, 1))


def memory(profile: Profile) -> Table:
    """What each rank holds, accounted by kind, and measured peaks."""
    rows = []
    for held in profile.memory:
        parts = [held.weights_bytes, held.gradients_bytes, held.optimizer_bytes]
        parts.append(held.activations_bytes)
        parts.append(sum(parts) + held.buffers_bytes)
        parts += [held.step_peak_bytes, held.resident_before_bytes, held.resident_peak_bytes]
        rows.append([str(held.rank), *(f"{part / 1e6:,.1f} MB" for part in parts)])
    return Table(head=(*_MEMORY_HEAD, "step's peak", "process before", "process peak"), rows=rows)


def uses(found: Sequence[Use]) -> Table:
    """Where each rank's time went, in percent of the time since the launch."""
    rows = []
    for use in found:
        whole = sum(use.seconds.values())
        shares = [use.seconds[name] / whole if whole > 0 else 0.0 for name in REASONS]
        cpu = _percent(use.cpu_share)
        rows.append([str(use.rank), *(f"{100 * s:.1f}%" for s in shares), f"{whole:.2f}", cpu])
    names = [REASON_NAMES.get(name, name) for name in REASONS]
    return Table(head=("rank", *names, "total s", "CPU in steps"), rows=rows)


def startup(parts: Mapping[str, float]) -> Table:
    """What start-up consisted of."""
    return Table(head=("start-up", "s"), rows=[(name, f"{s:.2f}") for name, s in parts.items()])


def engines(profile: Profile) -> Table:
    """The same training on several engines."""

    def cells(side: Profile) -> list[str]:
        times, totals, rate = side.step, side.totals, side.images_per_s
        if times is None or totals is None:
            return ["failed"] * len(_SIDE)
        return [
            str(side.workers),
            f"{rate:,.0f}" if rate else "",
            *(_ms(times.part(n)) for n in ("plain", "forward", "backward", "data")),
            _ms(times.communication_s),
            _ms(times.waiting_s),
            f"{side.utilisation[0].seconds['startup']:.2f}",
            _percent(totals.forward_share),
            _percent(totals.backward_share),
            f"{side.memory[0].resident_peak_bytes / 1e6:,.0f} MB",
        ]

    columns = [list(_SIDE), *map(cells, profile.sides.values())]
    return Table(head=("", *profile.sides), rows=list(zip(*columns, strict=True)))


_SIDE = (
    "workers",
    "images/s",
    "step ms",
    "forward ms",
    "backward ms",
    "data ms",
    "transfer ms",
    "waiting ms",
    "start-up s",
    "roofline forward",
    "roofline backward",
    "peak of a rank",
)


def machine(limits: Machine) -> Table:
    """The machine's limits."""
    rows = []
    for rate in limits.products:
        both = (rate.one_core_flops, rate.all_cores_flops)
        name = f"matrix product {rate.precision}"
        rows.append([name, *(f"{flops / 1e9:,.0f} GFLOP/s" for flops in both)])
    for copy in limits.copies:
        both = (copy.one_core_bytes, copy.all_cores_bytes)
        name = f"copy of {size_text(copy.array_bytes)}"
        rows.append([name, *(f"{moved / 1e9:,.1f} GB/s" for moved in both)])
    return Table(head=("limit", "one core", "all cores"), rows=rows)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3f}" if seconds < 0.01 else f"{1000 * seconds:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def size_text(count: int) -> str:
    """A size in memory's units."""
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} KB"
