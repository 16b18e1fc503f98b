"""The report of a robustness evaluation: curves, classes and pictures in one HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.core.files import write_atomically
from sixfold.core.html.axes import MISSING, linear, percent, percent_tick, plain, points_of
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.page import (
    Card,
    Cell,
    Figure,
    Matrix,
    Page,
    Picture,
    PictureRows,
    Section,
    Table,
    configuration,
)
from sixfold.core.html.pictures import picture
from sixfold.prediction.robustness.config import EvaluateConfig
from sixfold.prediction.robustness.distortions import KINDS, Distortion

MOST_CLASSES = 40  # Up to so many classes have a row of their own; of more, those that lose most

_HEAD = (
    *("Strength", "Accuracy", "95% interval", "Against clean, points"),
    *("Balanced", "Loss", "Predictions changed"),
)

Figures = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Example:
    """The images that are shown, (C, H, W) of 0 to 255, under one distortion, or none."""

    distortion: Distortion | None
    pixels: Sequence[NDArray[np.uint8]]


def write_page(
    path: Path,
    config: Mapping[str, Mapping[str, Any]],
    result: Figures,
    examples: Sequence[Example] = (),
) -> None:
    """Write the report; `examples` are the clean images, then each distortion's."""
    write_atomically(path, render(config, result, examples).encode())


def render(
    config: Mapping[str, Mapping[str, Any]], result: Figures, examples: Sequence[Example]
) -> str:
    """The page as text."""
    return Page(
        title=f"{Path(result['run']).name}: robustness · Sixfold",
        eyebrow="Sixfold robustness",
        heading=Path(result["run"]).name,
        subtitle=f"{result['images']:,} images of {result['data'].partition(':')[0]}, "
        f"{result['part']} split, {len(result['classes'])} classes, seed {result['seed']}",
        figures=_headline(result),
        navigation=True,
        sections=[
            *(_section(kind, result, examples) for kind in result["distortions"]),
            configuration(config, EvaluateConfig, sorted(result["versions"].items())),
        ],
    ).html()


def _section(kind: Figures, result: Figures, examples: Sequence[Example]) -> Section:
    clean, truth = result["clean"], result["example_labels"]
    pictures = {
        e.distortion.strength: e.pixels
        for e in examples
        if e.distortion is not None and e.distortion.kind == kind["kind"]
    }
    shown = [("clean", _shown("clean", examples[0].pixels, clean, truth))] if examples else []
    for found in kind["strengths"]:
        name = plain(found["strength"])
        if (pixels := pictures.get(found["strength"])) is not None:
            shown.append((name, _shown(name, pixels, found, truth)))
    strengths = [plain(found["strength"]) for found in kind["strengths"]]
    blocks: list[Any] = [
        curve(kind, clean, result["chance"]),
        Matrix(
            title="By class",
            detail="accuracy in percent",
            columns=["clean", *strengths],
            rows=class_rows(kind, clean),
            css="byclass",
        ),
        Card(css="wide", blocks=[Table(head=_HEAD, rows=list(map(_row, kind["strengths"])))]),
    ]
    if shown and shown[0][1]:
        note = "as the network sees them, with what it takes them for"
        blocks.append(
            Card(css="wide", blocks=[PictureRows(title="Examples", detail=note, rows=shown)])
        )
    return Section(
        id=kind["kind"],
        title=kind["title"],
        lead=f"Strength: {kind['unit']}. Mean accuracy {percent(kind['mean_accuracy'])}; half the "
        f"way from clean to guessing: {_halfway(kind)}.",
        css="grid",
        blocks=blocks,
    )


def _headline(result: Figures) -> list[Figure]:
    clean = result["clean"]
    found = [
        (
            "Clean images",
            percent(clean["accuracy"], 2),
            f"95% interval {percent(clean['low'], 2)} to {percent(clean['high'], 2)}",
        )
    ]
    if result["distortions"]:
        by_mean = sorted(result["distortions"], key=lambda kind: float(kind["mean_accuracy"]))
        strengths = ((kind, one) for kind in result["distortions"] for one in kind["strengths"])
        kind, worst = min(strengths, key=lambda pair: float(pair[1]["accuracy"]))
        found += [
            (
                "Distorted images",
                percent(result["mean_distorted_accuracy"]),
                "mean over kinds of the mean over strengths",
            ),
            (
                "Hurts most",
                by_mean[0]["title"],
                f"{percent(by_mean[0]['mean_accuracy'])} on average; least "
                f"{by_mean[-1]['title'].lower()}, {percent(by_mean[-1]['mean_accuracy'])}",
            ),
            (
                "Lowest accuracy",
                percent(worst["accuracy"]),
                f"{kind['title'].lower()} {plain(worst['strength'])}",
            ),
        ]
    found.append(("Guessing", percent(result["chance"]), "part of the most frequent class"))
    return found


def _halfway(kind: Figures) -> str:
    if kind["halfway"] is None:
        return "not reached"
    first = kind["strengths"][0]["strength"]
    least = "at most " if kind["halfway"] == first else ""
    return least + plain(float(f"{kind['halfway']:.3g}"))


def curve(kind: Figures, clean: Figures, chance: float) -> Chart:
    """Accuracy against strength: over all images with its interval, and of every class."""
    found = [{"strength": KINDS[kind["kind"]].least, **clean}, *kind["strengths"]]
    strengths = [entry["strength"] for entry in found]
    faint: dict[str, Any] = {"colour": "other", "kind": "faint", "key": False, "hover": False}
    series = [
        Series(name=own[0]["name"], x=strengths, y=list(map(_accuracy, own)), **faint)
        for own in _by_class(found)[:MOST_CLASSES]
    ]
    ends = [strengths[0], strengths[-1]]
    series.append(Series(name="guessing", x=ends, y=[chance] * 2, colour="test", hover=False))
    values, low, high = ([entry[name] for entry in found] for name in ("accuracy", "low", "high"))
    series.append(Series(name="all images", x=strengths, y=values, low=low, high=high, dots=True))
    return Chart(
        id=kind["kind"],
        title="Accuracy",
        note="bars: 95% interval; thin: each class; broken: guessing",
        summary=f"{kind['title']}: "
        + ", ".join(f"{plain(e['strength'])}: {percent(e['accuracy'])}" for e in found),
        x=linear(strengths[0], strengths[-1], plain, snug=True),
        y=linear(0.0, 1.0, percent_tick, snug=True),
        x_label=kind["unit"],
        series=series,
        write=lambda value: percent(value, 2),
        head=lambda strength: "clean" if strength == strengths[0] else plain(strength),
    )


def _by_class(found: Sequence[Figures]) -> list[tuple[Figures, ...]]:
    return list(zip(*(entry["per_class"] for entry in found), strict=True))


def _accuracy(entry: Figures) -> float:
    return float("nan") if entry["accuracy"] is None else float(entry["accuracy"])


def class_rows(kind: Figures, clean: Figures) -> list[tuple[str, list[Cell]]]:
    """Accuracy of each class, clean and at each strength; of many, those that lose most."""
    rows = _by_class([clean, *kind["strengths"]])
    if len(rows) > MOST_CLASSES:

        def loss(own: Sequence[Figures]) -> float:
            first, *rest = map(_accuracy, own)
            return float(np.nan_to_num(first - np.mean(rest), nan=-1.0))

        rows = sorted(rows, key=loss, reverse=True)[:MOST_CLASSES]
    return [(own[0]["name"], list(map(_cell, own))) for own in rows]


def _cell(entry: Figures) -> Cell:
    accuracy = entry["accuracy"]
    if accuracy is None:
        return Cell(text=MISSING, strength=0.0, title="no images")
    return Cell(
        text=f"{100 * accuracy:.0f}",
        strength=round(0.06 + 0.94 * accuracy, 3),
        title=f"{entry['name']}: {entry['correct']} of {entry['images']} right "
        f"({percent(entry['low'])} to {percent(entry['high'])}); predicted "
        f"{entry['predicted']} times",
    )


def _row(found: Figures) -> tuple[str, ...]:
    return (
        plain(found["strength"]),
        percent(found["accuracy"], 2),
        f"{percent(found['low'], 2)} to {percent(found['high'], 2)}",
        points_of(found["difference"]),
        percent(found["balanced_accuracy"], 2),
        MISSING if found["loss"] is None else plain(float(f"{found['loss']:.4g}")),
        percent(found["changed"]),
    )


def _shown(
    label: str, pixels: Sequence[NDArray[np.uint8]], figures: Figures, truth: Sequence[str]
) -> list[tuple[Picture, str, str]]:
    return [
        (picture(image, f"{label}: taken for {name}"), name, "" if name == own else "wrong")
        for image, name, own in zip(pixels, figures["examples"], truth, strict=True)
    ]
