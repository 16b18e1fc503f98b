"""What the measurements of products amount to: a table, a chart, and a verdict."""

import math
import statistics
from dataclasses import dataclass
from itertools import pairwise

from sixfold.core.html.axes import compact, duration, logarithmic
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.page import Bar, Bars, Table
from sixfold.studies.lab.cluster import Cost
from sixfold.studies.lab.findings import Findings, megabytes, percent, ratio, seconds, yes
from sixfold.studies.lab.matmul.model import Prediction, Rates, crossover
from sixfold.studies.lab.matmul.operands import Parts, Product

_COLOURS = {"row": "training", "outer": "validation", "block": "other"}
_ALONE = "one thread, no Spark"


@dataclass(frozen=True, kw_only=True)
class MeasuredWay:
    """A way to divide a product."""

    way: str
    costs: list[Cost]  # of every timed run
    cost: Cost  # of the median run
    kernel_s: float  # time inside the kernels, over all tasks, in that run
    error: float  # the largest error of samples
    right: bool  # whether that is rounding
    predicted: Prediction  # what the model says


@dataclass(frozen=True, kw_only=True)
class MeasuredProduct:
    """A product and the ways to divide it."""

    product: Product
    name: str
    flops: int
    alone_s: float  # on one thread, without Spark
    alone_predicted_s: float  # what the model says of that
    ways: list[MeasuredWay]


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """The size of a square product from which dividing it pays."""

    predicted: float | None  # None: never below 100,000
    measured: float | str  # in words where it lies outside of the sizes that were measured


@dataclass(frozen=True, kw_only=True)
class PredictionError:
    """Relative errors of the model's times."""

    mean_absolute: float
    median_absolute: float
    bias: float  # their mean


@dataclass(frozen=True, kw_only=True)
class MatmulResult:
    """What the study has measured."""

    rates: Rates
    parts: Parts
    products: list[MeasuredProduct]
    crossover: dict[str, Crossover]  # by way
    prediction_error: PredictionError


def summarize(
    slots: int, rates: Rates, parts: Parts, measured: list[MeasuredProduct], block_rows: int
) -> Findings:
    """Findings of the study."""
    squares = [one for one in measured if one.product.m == one.product.k == one.product.n]
    errors = [w.predicted.total_s / w.cost.wall_s - 1 for one in measured for w in one.ways]
    result = MatmulResult(
        rates=rates,
        parts=parts,
        products=measured,
        crossover={
            way.way: Crossover(
                predicted=crossover(way.way, parts, rates, slots, block_rows),
                measured=measured_crossover(squares, way.way),
            )
            for way in measured[0].ways
        },
        prediction_error=PredictionError(
            mean_absolute=statistics.mean(map(abs, errors)),
            median_absolute=statistics.median(map(abs, errors)),
            bias=statistics.mean(errors),
        ),
    )
    ordered = sorted(squares, key=lambda one: one.product.n)
    return Findings(
        title="Matrix products, divided on Spark",
        subtitle=f"{parts.inner} parts of k, {parts.columns} of n",
        right=all(way.right for one in measured for way in one.ways),
        tables=[_table(measured), _rates_table(rates)],
        bars=[_bars(measured, slots)],
        charts=[_chart(ordered)] if len(squares) > 1 else [],
        verdict=_verdict(result, slots),
        result=result,
    )


def measured_crossover(squares: list[MeasuredProduct], name: str) -> float | str:
    """The n from which dividing pays, interpolated in logarithms; in words if outside."""
    points = sorted(
        (one.product.n, math.log(one.alone_s / way.cost.wall_s))
        for one in squares
        for way in one.ways
        if way.way == name
    )
    for (low, before), (high, after) in pairwise(points):
        if before <= 0 < after:
            share = -before / (after - before)
            return math.exp(math.log(low) + share * math.log(high / low))
    if not points:
        return "no square products"
    return f"below {points[0][0]}" if points[0][1] > 0 else f"above {points[-1][0]}"


def _table(measured: list[MeasuredProduct]) -> Table:
    rows: list[tuple[str, ...]] = []
    for one in measured:
        alone = one.alone_s
        rows.append(
            (
                *(one.name, _ALONE, seconds(alone), seconds(one.alone_predicted_s)),
                *(_off(one.alone_predicted_s / alone - 1), "1x", "0", "0", "0", "", ""),
            )
        )
        for way in one.ways:
            wall_s, forecast = way.cost.wall_s, way.predicted
            rows.append(
                (
                    *(one.name, way.way, seconds(wall_s), seconds(forecast.total_s)),
                    _off(forecast.total_s / wall_s - 1),
                    ratio(alone / wall_s),
                    megabytes(way.cost.shuffle_bytes),
                    megabytes(way.cost.broadcast_bytes),
                    f"{way.cost.tasks}",
                    percent(way.kernel_s, way.cost.run_s),
                    yes(way.right),
                )
            )
    return Table(
        title="Products",
        note="Speed-up over one thread without Spark, whose factors are at hand. Kernel: part of "
        "the tasks' time inside the kernels. C stays in the workers.",
        head=(
            *("product m x k x n", "way", "time s", "predicted s", "error", "speed-up"),
            *("shuffled MB", "broadcast MB", "tasks", "kernel %", "right"),
        ),
        rows=rows,
    )


def _off(part: float) -> str:
    return f"{100 * part:+.0f}%"


def _rates_table(rates: Rates) -> Table:
    return Table(
        title="Measured rates",
        note="From which times are predicted; see docs/lab.md for the model.",
        head=("rate", "value"),
        rows=[
            ("a job that does nothing", f"{1000 * rates.job_s:.0f} ms"),
            ("one more stage", f"{1000 * rates.stage_s:.0f} ms"),
            ("peak of a slot", f"{rates.peak_flops / 1e9:.1f} GFLOP/s"),
            ("memory of a slot", f"{rates.memory_bytes_s / 1e9:.1f} GB/s"),
            ("peak of one thread alone", f"{rates.alone_flops / 1e9:.1f} GFLOP/s"),
            ("memory of one thread alone", f"{rates.alone_bytes_s / 1e9:.1f} GB/s"),
            ("shuffle", f"{rates.shuffle_bytes_s / 1e6:.0f} MB/s"),
            ("broadcast", f"{rates.broadcast_bytes_s / 1e6:.0f} MB/s"),
        ],
    )


def _bars(measured: list[MeasuredProduct], slots: int) -> Bars:
    bars = []
    for one in measured:
        parts: tuple[tuple[float, str], ...] = ((one.alone_s, "compute"),)
        bars.append(Bar(name=f"{one.name} alone", parts=parts, text=duration(one.alone_s)))
        for way in one.ways:
            wall_s = way.cost.wall_s
            kernel_s = min(way.kernel_s / slots, wall_s)
            parts = (kernel_s, "compute"), (wall_s - kernel_s, "communication")
            bars.append(Bar(name=f"{one.name} {way.way}", parts=parts, text=duration(wall_s)))
    return Bars(
        title="Time of every product",
        note="Median run. Multiplying: time inside the kernels divided by the slots.",
        bars=bars,
        keys=(("multiplying", "compute"), ("everything else", "communication")),
    )


def _chart(squares: list[MeasuredProduct]) -> Chart:
    """Time over size of square products: measured as dots, predicted as lines."""
    sizes = [float(one.product.n) for one in squares]
    ways: list[tuple[str, str, list[float], list[float]]] = [
        ("alone", "update", [o.alone_s for o in squares], [o.alone_predicted_s for o in squares])
    ]
    for place, way in enumerate(squares[0].ways):
        own = [one.ways[place] for one in squares]
        times, forecast = [w.cost.wall_s for w in own], [w.predicted.total_s for w in own]
        ways.append((way.way, _COLOURS[way.way], times, forecast))
    known = [value for *_, times, forecast in ways for value in (*times, *forecast)]
    series = []
    for name, colour, times, forecast in ways:
        dots = Series(name=f"{name}, measured", x=sizes, y=times, colour=colour, kind="dots")
        series.append(dots)
        series.append(Series(name=f"{name}, predicted", x=sizes, y=forecast, colour=colour))
    return Chart(
        id="squares",
        title="Square products n x n x n",
        note="Dots: measured. Lines: predicted. Where a way's curve falls below that of one thread "
        "alone, dividing pays.",
        summary="time of square products over their size, for each way to divide them",
        x=logarithmic(sizes[0], sizes[-1], compact),
        y=logarithmic(min(known), max(known), duration),
        x_label="n",
        series=series,
        write=duration,
        head=lambda size: f"n = {size:.0f}",
    )


def _verdict(result: MatmulResult, slots: int) -> list[str]:
    lines = []
    for one in result.products:
        best = min(one.ways, key=lambda way: way.cost.wall_s)
        gain = one.alone_s / best.cost.wall_s
        moved = best.cost.shuffle_bytes + best.cost.broadcast_bytes
        rest = 1 - min(best.kernel_s / slots / best.cost.wall_s, 1.0)
        lines.append(
            f"{one.name}: {best.way} is the fastest, {gain:.2g} times one thread on "
            f"{slots} slots; it moves {megabytes(moved)} MB for "
            f"{one.flops / 1e9:.3g} GFLOP, and {rest:.0%} of its time is not multiplying."
        )
    for way, found in result.crossover.items():
        forecast = "(never)" if found.predicted is None else f"{found.predicted:,.0f}"
        seen = found.measured if isinstance(found.measured, str) else f"{found.measured:,.0f}"
        lines.append(
            f"Square products: {way} pays from n = {forecast} on by the model; measured: {seen}."
        )
    error, rates = result.prediction_error, result.rates
    lines.append(
        f"The model's error is {error.mean_absolute:.0%} on the average (median "
        f"{error.median_absolute:.0%}). Moving a number through a shuffle takes as long as "
        f"{4 * rates.peak_flops * slots / rates.shuffle_bytes_s:,.0f} operations on all slots: a "
        "division that shuffles must have more work than that for every number it sends."
    )
    return lines
