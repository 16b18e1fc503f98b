"""What a person sees: tables, sentences, and a page that loads nothing."""

from __future__ import annotations

from collections.abc import Callable

from sixfold.plan import page
from sixfold.plan.candidates import Candidate
from sixfold.plan.cluster import parse_cluster
from sixfold.plan.model import Model
from sixfold.plan.ranking import explain
from sixfold.plan.whatif import simulate
from sixfold.plan.whatif_page import (
    TITLES,
    what_if_chart,
    what_if_plain,
    what_if_rows,
    what_if_sentences,
    what_if_text,
)


def test_the_page_is_complete_and_marks_what_is_extrapolated(
    model_for: Callable[..., Model],
) -> None:
    model, cluster = model_for(), parse_cluster("workers=64,per_host=8")
    predictions = [model.predict(Candidate(strategy="sync", workers=n)) for n in (1, 2)]
    points = simulate(model, cluster)
    lines = page.rows(predictions, model.work, images=1000)
    text = page.render(
        title="net & <b>",
        subtitle="here",
        predictions=predictions,
        lines=lines,
        sentences=explain(predictions, model.work),
        facts={"Machine": "by hand"},
        what_if=page.WhatIf(
            workers=64,
            sentences=tuple(what_if_sentences(points, cluster)),
            titles=TITLES,
            rows=tuple(what_if_rows(points, 64)),
            chart=what_if_chart(points),
        ),
    )
    assert "EXTRAPOLATION" in text
    assert "net &amp; &lt;b&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert page.table(lines)[1].startswith("sync")


def test_the_terminal_says_extrapolation_first(model_for: Callable[..., Model]) -> None:
    model, cluster = model_for(), parse_cluster("workers=64,per_host=8")
    points = simulate(model, cluster)
    text = what_if_text(points, cluster)
    assert text[0].startswith("EXTRAPOLATION to 64 workers")
    assert "per_host" in str(what_if_plain(points, cluster)["cluster"])
    assert all(found["extrapolated"] for found in what_if_plain(points, cluster)["points"])
