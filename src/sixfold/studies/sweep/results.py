"""From what became of a sweep's members to the figures that `result.json` holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sixfold.distributed.tasks import Outcome
from sixfold.studies.sweep.config import SweepQualityConfig, SweepTimeConfig
from sixfold.studies.sweep.plan import Plan, chosen_names
from sixfold.studies.sweep.quality import Trained, cells, chosen, effects
from sixfold.studies.sweep.scaling import (
    AMOUNTS,
    Point,
    amdahl,
    ernest,
    ernest_whole,
    gustafson,
    series,
    speedups,
    spread,
)


def time_result(config: SweepTimeConfig, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Every combination with its speed, speed-up and efficiency; and the laws."""
    rows = [_time_row(number, plan, outcome) for number in range(len(plan.combinations))]
    points = {
        number: Point(
            values=plan.combinations[number].values,
            workers=row["workers"],
            batch_size=row["batch_size"],
            rates=tuple(entry["images_per_s"] for entry in row["repeats"]),
            images=row["steps"] * row["batch_size"],
            whole_s=tuple(
                entry["startup_s"] + entry["steps"] * entry["step_s"] for entry in row["repeats"]
            ),
        )
        for number, row in enumerate(rows)
        if row["repeats"]
    }
    numbers = {id(point): number for number, point in points.items()}
    known = list(points.values())
    strong = series(known, "workers")
    for own in strong:
        for point, figures in zip(own, speedups(own), strict=True):
            rows[numbers[id(point)]] |= figures or {}
    _add_serial(rows)
    draws = config.sweep.bootstrap
    both = series(known, "workers", "batch_size")
    laws = [law for own in strong if (law := amdahl(own, draws)) is not None]
    laws += [law for own in both for law in gustafson(own, draws)]
    laws += [law for own in both if (law := ernest(own, draws)) is not None]
    if not set(AMOUNTS).isdisjoint(plan.varied):
        amounts = series(known, "workers", *AMOUNTS)
        laws += [law for own in amounts if (law := ernest_whole(own, draws)) is not None]
    return {
        "what": "time",
        "varied": _varied(plan),
        "points": rows,
        "laws": laws,
        "repeats": config.sweep.repeats,
        "load_before": spread(loads) if (loads := _loads(rows)) else None,
    }


def _add_serial(rows: list[dict[str, Any]]) -> None:
    """Where strategies are varied, how fast each is against one synchronous worker."""
    alone = {
        _but_for(row, "strategy", "workers"): row
        for row in rows
        if row["strategy"] == "sync" and row["workers"] == 1 and row["repeats"]
    }
    for row in rows:
        base = alone.get(_but_for(row, "strategy", "workers"))
        if base is None or not row["repeats"] or "strategy" not in row["values"]:
            continue
        pairs = zip(row["repeats"], base["repeats"], strict=False)
        ratios = [own["images_per_s"] / one["images_per_s"] for own, one in pairs]
        row["over_serial"] = spread(ratios)


def _but_for(row: Mapping[str, Any], *names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in row["values"].items() if name not in names)


def _loads(rows: list[dict[str, Any]]) -> list[float]:
    return [entry["load_before"] for row in rows for entry in row["repeats"]]


def _time_row(number: int, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    one = plan.combinations[number]
    own = [
        (repeat, outcome.results[name])
        for name, (which, repeat) in plan.of.items()
        if which == number and repeat >= 0 and name in outcome.results
    ]
    timed = [found for _, found in sorted(own, key=lambda item: item[0]) if found.get("step_s")]
    refused = next((found["refused"] for _, found in own if "refused" in found), None)
    diverged = next((found["diverged"] for _, found in own if "diverged" in found), None)
    row: dict[str, Any] = {
        "values": dict(one.values),
        "workers": one.config.engine.workers,
        "batch_size": one.config.training.batch_size,
        "strategy": one.config.strategy.strategy,
        "engine": one.config.engine.engine,
        "images": one.config.data.max_images,
        "refused": refused or diverged,
        "repeats": timed,
    }
    if timed:
        row["images_per_s"] = spread([found["images_per_s"] for found in timed])
        row["step_s"] = spread([found["step_s"] for found in timed])
        row["steps"] = timed[0]["steps"]
        row["startup_s"] = float(np.median([found["startup_s"] for found in timed]))
        row["parts"] = _mean_parts([found["parts"] for found in timed])
    return row


def _mean_parts(found: list[Mapping[str, float]]) -> dict[str, float]:
    return {
        name: float(np.mean([parts.get(name, 0.0) for parts in found]))
        for name in (found[0] if found else {})
    }


def quality_result(
    config: SweepQualityConfig, plan: Plan, outcome: Outcome, images: int
) -> dict[str, Any]:
    """Every combination with what it reached; means over seeds; and what each setting does."""
    rows, trained = [], []
    for name, (number, _) in plan.of.items():
        one = plan.combinations[number]
        found = outcome.results.get(name, {})
        rows.append({"values": dict(one.values), **found})
        if found.get("test_accuracy") is not None:
            trained.append(
                Trained(
                    values=one.values,
                    accuracy=found["test_accuracy"],
                    loss=found.get("test_loss", math.nan),
                    validation=found.get("validation_accuracy", math.nan),
                )
            )
    varied = _varied(plan)
    names = chosen_names(config)
    if names:
        lost = [row["values"] for row in rows if "diverged" in row]
        trained = chosen(trained, names, lost)
        varied = {name: values for name, values in varied.items() if name not in names}
    return {
        "what": "quality",
        "varied": _varied(plan),
        "chosen": names,
        "trainings": rows,
        "cells": cells(trained, images),
        "effects": effects(trained, varied, images),
        "test_images": images,
    }


def _varied(plan: Plan) -> dict[str, list[Any]]:
    return {
        name: list(dict.fromkeys(one.values[name] for one in plan.combinations))
        for name in plan.varied
    }
