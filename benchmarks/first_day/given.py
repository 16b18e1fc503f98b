"""What the tasks of `examples/first_day.py` are given, for Lightning: tensors and quiet options."""

# ruff: noqa: F401
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from first_day import IMAGES, LABELS, NUMBERS, TAGS, TASKS, Digits, Net, WithHelp, focal, table

FAST: dict[str, Any] = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
}
X = torch.from_numpy(IMAGES)[:, None] / 255
Y = torch.from_numpy(LABELS)
