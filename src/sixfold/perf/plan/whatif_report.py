"""The simulation of a larger cluster as a table and as a chart."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sixfold.core.html.axes import duration, logarithmic, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.page import Section, Table
from sixfold.perf.plan.candidates import count_workers
from sixfold.perf.plan.cluster import Cluster
from sixfold.perf.plan.ranking import prediction_plain
from sixfold.perf.plan.report import limit, size
from sixfold.perf.plan.whatif import Point, at, quickest

TITLES = (
    "way",
    "workers",
    "batch",
    "9 of 10",
    "run",
    "9 of 10",
    "memory/rank",
    "sent/batch",
    "failures",
    "limited by",
)

COLOURS = {
    "sync": "training",
    "model_parallel": "validation",
    "local_sgd": "other",
    "hogwild": "compute",
    "param_server": "communication",
}


def what_if_table(points: Sequence[Point], workers: int) -> Table:
    """The table for so many workers, with the quickest on fewer; the quickest run first."""
    first, there = quickest(points), at(points, workers)
    is_there = first.prediction.candidate.workers == workers
    rows = [_row(point) for point in ([] if is_there else [first]) + there]
    return Table(head=TITLES, rows=rows, texts=range(len(TITLES)))


def _row(point: Point) -> tuple[str, ...]:
    found = point.prediction
    return (
        found.candidate.name,
        str(found.candidate.workers),
        duration(point.mean_s),
        f"{duration(point.low_s)} to {duration(point.high_s)}",
        duration(point.run_s),
        f"{duration(point.run_low_s)} to {duration(point.run_high_s)}",
        size(found.memory_bytes),
        size(found.sent_bytes),
        f"{point.failures:.2g}",
        limit(found),
    )


def what_if_text(points: Sequence[Point], cluster: Cluster) -> list[str]:
    """For the terminal."""
    return [
        f"EXTRAPOLATION to {cluster.workers:,} workers from what was measured on far fewer",
        *what_if_table(points, cluster.workers).lines(),
        "",
        *what_if_sentences(points, cluster),
    ]


def what_if_section(points: Sequence[Point], cluster: Cluster) -> Section:
    """For the page."""
    return Section(
        title=f"What if there were {cluster.workers:,} workers",
        mark="EXTRAPOLATION",
        lead=" ".join(what_if_sentences(points, cluster)),
        blocks=[what_if_chart(points), what_if_table(points, cluster.workers)],
    )


def what_if_sentences(points: Sequence[Point], cluster: Cluster) -> list[str]:
    """What is quickest there, where synchronous training stops to gain, and what failures cost."""
    first, there = quickest(points), at(points, cluster.workers)
    sync = quickest(points, "sync")
    top = next(p for p in there if p.prediction.candidate.strategy == "sync")
    idle = top.prediction.idle_ranks
    return [
        _first_sentence(first, there[0]),
        f"sync is quickest on {count_workers(sync.prediction.candidate.workers)}, "
        f"{duration(sync.mean_s)} a batch; on {cluster.workers:,} it takes {duration(top.mean_s)}, "
        f"limited by {top.prediction.limit}"
        + (f", and {idle:,} have no logical shard." if idle else "."),
        "Times are for the same number of batches, which approximate strategies may need more of "
        f"to learn as much; {top.failures:.2g} failures are to be expected during the run of sync "
        f"there, with one in {cluster.mtbf_hours:g} hours a host and a checkpoint every "
        f"{cluster.checkpoint_minutes:g} min.",
    ]


def _first_sentence(first: Point, there: Point) -> str:
    """What is quickest of all, and on all workers where that is something else."""
    if not first.prediction.fits:
        return "Nothing fits into memory on any number of workers."
    way, other = first.prediction.candidate, there.prediction.candidate
    text = f"{way.title} is predicted to be quickest, {_figures(first)}"
    if there is first:
        return f"{text}."
    if not there.prediction.fits:
        return f"{text}; on {count_workers(other.workers)} nothing fits into memory."
    return f"{text}: more workers do not help. {other.title} takes {_figures(there)}."


def _figures(point: Point) -> str:
    return (
        f"{duration(point.mean_s)} a batch on average ({duration(point.low_s)} to "
        f"{duration(point.high_s)}) and {duration(point.run_s)} a run, limited by "
        f"{point.prediction.limit}"
    )


def what_if_plain(points: Sequence[Point], cluster: Cluster) -> dict[str, Any]:
    """As plain data."""
    return {
        "extrapolation": True,
        "cluster": dataclasses.asdict(cluster),
        "sentences": what_if_sentences(points, cluster),
        "points": [
            {
                **prediction_plain(point.prediction),
                **{name: value for name, value in vars(point).items() if name != "prediction"},
                "extrapolated": True,
            }
            for point in points
        ],
    }


def what_if_chart(points: Sequence[Point]) -> Chart:
    """Mean time of a batch by workers, a line for every strategy's best grid."""
    lines = _lines(points)
    counts = sorted({count for line in lines.values() for count in line})
    times = [point.mean_s for line in lines.values() for point in line.values()]
    x = logarithmic(min(counts), max(max(counts), 2), plain)
    series = []
    for strategy, line in lines.items():
        at, colour = list(line), COLOURS[strategy]
        for name in ("low_s", "high_s", "mean_s"):
            middle = name == "mean_s"
            series.append(
                Series(
                    name=strategy,
                    x=at,
                    y=[getattr(point, name) for point in line.values()],
                    colour=colour,
                    kind="line" if middle else "faint",
                    dots=middle,
                    key=middle,
                    hover=middle,
                )
            )
    return Chart(
        id="what-if",
        title="Mean time of a batch",
        note="Both scales logarithmic. Bands: nine of ten draws of what is not known.",
        summary="Mean time of a batch for each strategy, by the number of workers.",
        x=x.ticked(counts[:: -(-len(counts) // 8)], lambda count: f"{count:,}"),
        y=logarithmic(min(times), max(times), duration),
        x_label="workers",
        series=series,
        write=duration,
        head=lambda count: f"{count:,.0f} workers",
    )


def _lines(points: Sequence[Point]) -> Mapping[str, dict[int, Point]]:
    found: dict[str, dict[int, Point]] = {}
    for point in points:
        way = point.prediction.candidate
        line = found.setdefault(way.strategy, {})
        if way.workers not in line or point.mean_s < line[way.workers].mean_s:
            line[way.workers] = point
    return {name: dict(sorted(line.items())) for name, line in found.items()}
