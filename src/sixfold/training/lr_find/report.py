"""The page of a learning-rate range test."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import linear, logarithmic, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.page import Page, Section


def chart(figures: Mapping[str, Any]) -> Chart:
    """The loss over the learning rate."""
    rates, losses, curve = figures["rates"], figures["losses"], figures["smoothed"]
    chosen = figures["suggested_lr"]
    return Chart(
        id="range",
        title="Loss over the learning rate",
        note="The vertical line is the suggestion: where the smoothed loss falls fastest.",
        summary=f"Loss at learning rates from {plain(rates[0])} to {plain(rates[-1])}; suggested: "
        f"{'none' if chosen is None else plain(chosen)}.",
        x=logarithmic(rates[0], max(rates[-1], rates[0] * 1.001), plain),
        y=linear(0.0, max(curve), plain),
        x_label="learning rate",
        series=[
            Series(name="loss of the step", x=rates, y=losses, colour="other"),
            Series(name="smoothed", x=rates, y=curve),
        ],
        restarts=[] if chosen is None else [chosen],
    )


def write_page(path: Path, model: str, figures: Mapping[str, Any]) -> None:
    """Write the page; a `RunError` if it cannot be written."""
    chosen = figures["suggested_lr"]
    page = Page(
        title=f"Learning rates of {model}",
        eyebrow="Sixfold, learning-rate range test",
        heading=model,
        subtitle="the loss never fell: try other rates or another network"
        if chosen is None
        else f"suggested: --lr {chosen:.2g}",
        sections=[Section(title="Range test", blocks=[chart(figures)])],
        files="lr-find.json has the figures, metrics.jsonl every step",
    )
    write_atomically(path, page.html().encode())
