from __future__ import annotations

import re
from typing import Any

import pytest

from sixfold.core.html.page import Bar, Bars, Table
from sixfold.studies.lab.findings import Findings


@pytest.fixture
def findings() -> Findings:
    plot = Bars(
        title="Times",
        note="",
        bars=[
            Bar(name="a <b>", parts=((1.0, "compute"), (3.0, "waiting")), text="4 s"),
            Bar(name="none", parts=(), text="absent", estimated=True),
        ],
    )
    table = Table(title="T", note="n", head=("x", "y"), rows=[("p", "1"), ("q", "2")])
    return Findings(title="Title", subtitle="s", verdict=["v"], tables=[table], bars=[plot])


RECORD: dict[str, Any] = {
    "study": "loopnest",
    "master": "local[2]",
    "slots": 2,
    "settings": {"a": {"b": "<c>"}},
    "machine": "m",
    "versions": {"python": "3"},
    "load_average": {"before": (0.5, 0, 0)},
}


def test_a_page_is_complete_in_itself_and_escaped(findings: Findings) -> None:
    page = findings.page(RECORD).html()
    assert "a &lt;b&gt;" in page
    assert "b=&lt;c&gt;" in page
    assert not re.search(r"(src|href)=.(https?:)?//", page)
    assert "all results right" in page
    findings.right = False
    assert "a result is wrong" in findings.page(RECORD).html()


def test_parts_of_a_bar_lie_side_by_side(findings: Findings) -> None:
    first, none = findings.bars[0].drawn()
    assert [(p.left, p.width, p.colour) for p in first[1]] == [
        (0.0, 25.0, "compute"),
        (25.0, 75.0, "waiting"),
    ]
    assert none[1] == []
    assert none[0].estimated


def test_a_logarithmic_bar_is_never_invisible() -> None:
    bars = [Bar(name=str(v), parts=((v, "length"),), text="") for v in (1.0, 10.0, 100.0)]
    plot = Bars(title="", note="", bars=bars, log=True)
    assert [parts[0].width for _, parts, _ in plot.drawn()] == [4.0, 52.0, 100.0]
