"""What a person sees: tables, sentences, and a page that loads nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from sixfold.core.html.axes import duration, plain
from sixfold.perf.plan import report
from sixfold.perf.plan.candidates import Candidate
from sixfold.perf.plan.cluster import parse_cluster
from sixfold.perf.plan.model import Model
from sixfold.perf.plan.ranking import explain
from sixfold.perf.plan.whatif import quickest, simulate
from sixfold.perf.plan.whatif_report import (
    TITLES,
    what_if_plain,
    what_if_section,
    what_if_sentences,
    what_if_table,
    what_if_text,
)


def test_the_page_is_complete_and_marks_what_is_extrapolated(
    model_for: Callable[..., Model],
) -> None:
    model, cluster = model_for(), parse_cluster("workers=64,per_host=8")
    predictions = [model.predict(Candidate(strategy="sync", workers=n)) for n in (1, 2)]
    points = simulate(model, cluster)
    ways = report.table(predictions, model.work)
    text = report.render(
        title="net & <b>",
        subtitle="here",
        predictions=predictions,
        ways=ways,
        sentences=explain(predictions, model.work),
        facts={"Machine": "by hand"},
        what_if=what_if_section(points, cluster),
    )
    assert "EXTRAPOLATION" in text
    assert "net &amp; &lt;b&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert ways.lines()[1].startswith("sync")


def test_the_table_adds_up_to_its_run(model_for: Callable[..., Model]) -> None:
    """With a heavy tail the mean is not the median: batch, images/s and run must be of one kind."""
    model = model_for()
    found = model.predict(Candidate(strategy="sync", workers=2))
    startup_s = found.total_s - found.mean_s * model.work.steps
    slow = dataclasses.replace(
        found, mean_s=2 * found.batch_s, total_s=startup_s + 2 * found.batch_s * model.work.steps
    )
    table = report.table([slow], model.work)
    cells = dict(zip(table.head, table.rows[0], strict=True))
    assert cells["batch"] == duration(slow.mean_s)
    assert cells["images/s"] == plain(round(model.work.batch_size / slow.mean_s))
    assert cells["core hours"] == f"{2 * slow.total_s / 3600:.3g}"
    assert cells["run"] == duration(startup_s + slow.mean_s * model.work.steps)
    assert f"{1000 * slow.mean_s:.3g} ms a batch on average" in explain([slow], model.work)[0]
    ((_, parts, _),) = report._bars([slow]).drawn()
    assert sum(part.width for part in parts) == pytest.approx(100 / 1.15, abs=0.1)


def test_the_quickest_of_a_what_if_is_the_quickest_of_its_table(
    model_for: Callable[..., Model],
) -> None:
    """Over a slow link fewer workers are quicker: sentence and table name the same way first."""
    model = model_for()
    cluster = parse_cluster("workers=64,per_host=1,link=1Mbps/50ms")
    points = simulate(model, cluster)
    first = quickest(points)
    assert first.prediction.candidate.workers < 64
    sentence, rows = what_if_sentences(points, cluster)[0], what_if_table(points, 64).rows
    assert sentence.startswith(f"{rows[0][0]} on {rows[0][1]} worker")
    assert "more workers do not help" in sentence
    assert rows[0][TITLES.index("run")] == duration(min(point.run_s for point in points))


def test_the_terminal_says_extrapolation_first(model_for: Callable[..., Model]) -> None:
    model, cluster = model_for(), parse_cluster("workers=64,per_host=8")
    points = simulate(model, cluster)
    text = what_if_text(points, cluster)
    assert text[0].startswith("EXTRAPOLATION to 64 workers")
    assert "per_host" in str(what_if_plain(points, cluster)["cluster"])
    assert all(found["extrapolated"] for found in what_if_plain(points, cluster)["points"])
