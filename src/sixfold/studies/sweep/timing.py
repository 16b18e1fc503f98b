"""What a timed training says: images per second, and where the time of its steps went."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.run_directory import read_json_lines
from sixfold.studies.sweep.plan import MOST_STEPS
from sixfold.training.worker import FIRST_TIMED_STEP

PARTS = ("compute_s", "data_s", "communication_s", "waiting_s", "update_s")


def timing(run: Path, result: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """The figures of one timed training.

    Returns:
        `images_per_s`; `step_s`, the batch over it; `parts`, mean seconds of a step over ranks and
        the steps behind the third, by what they went to; `startup_s`, `wall_s`, `steps`.
    """
    rate = result.get("train_images_per_s")
    return {
        "images_per_s": rate,
        "step_s": None if not rate else batch_size / rate,
        "parts": parts_of(run),
        "startup_s": result["startup_s"],
        "wall_s": result["wall_s"],
        "training_s": result["training_s"],
        "steps": result["steps"],
    }


def parts_of(run: Path) -> dict[str, float]:
    """Mean seconds of a step by what they went to; empty where ranks keep no time line."""
    rows = []
    for path in sorted((run / "timeline").glob("rank-*.jsonl")):
        for line in read_json_lines(path):
            if line.get("step", 0) > FIRST_TIMED_STEP:
                rows.append([float(line.get(part, 0.0)) for part in PARTS])
    if not rows:
        return {}
    means = np.mean(rows, axis=0)
    return {part.removesuffix("_s"): float(mean) for part, mean in zip(PARTS, means, strict=True)}


def chosen_steps(pilot: Mapping[str, Any], seconds: float) -> int:
    """So many steps that a training lasts about so long behind its third step."""
    step_s = pilot["step_s"] or seconds
    return min(max(math.ceil(seconds / step_s), 5) + FIRST_TIMED_STEP, MOST_STEPS)


def load() -> float:
    """Processes that want to run on this machine, over the last minute."""
    return os.getloadavg()[0]
