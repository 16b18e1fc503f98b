"""A learning-rate range test: a short training whose rate rises until the loss does."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from sixfold.core.errors import NonFiniteLossError, RunError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import parse_json_lines, write_json
from sixfold.training.lr_find.config import LrFindConfig, training_of
from sixfold.training.lr_find.divergence import smoothed, suggested
from sixfold.training.lr_find.report import write_page
from sixfold.training.run import resolve_paths, train

FIGURES, PAGE = "lr-find.json", "lr-find.html"


def lr_find(config: LrFindConfig, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Try learning rates on one short training, and suggest one.

    The rate rises from `--lr-from` to `--lr-to`, step by step in equal ratios, until the smoothed
    loss has risen to four times its least. Nothing is selected on the test set: the curve is that
    of the training's loss.

    Gives `suggested_lr` (None if the loss never fell), `steps`, `rates`, `losses`, `smoothed` and
    the page's path as `report`; also in ``lr-find.json`` of the run directory. A `UserError` if
    settings, data or network do not fit, a `RunError` if the run failed otherwise than by its loss.
    """
    raise_problems(config.problems())
    training = resolve_paths(training_of(config))
    path = Path(str(training.run.out))
    with contextlib.suppress(NonFiniteLossError):  # at a rate that is too large
        train(training, on_event=on_event)
    text = (path / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [line for line in parse_json_lines(text.splitlines())[0] if "lr" in line]
    if not lines:
        raise RunError(f"{path}: the first step had no loss: try a smaller --lr-from")
    rates = np.array([line["lr"] for line in lines], float)
    losses = np.array([line["loss"] for line in lines], float)
    figures: dict[str, Any] = {
        "suggested_lr": suggested(rates, losses),
        "steps": len(lines),
        "rates": rates.tolist(),
        "losses": losses.tolist(),
        "smoothed": smoothed(losses).tolist(),
        "report": str(path / PAGE),
    }
    write_json(path / FIGURES, figures)
    write_page(path / PAGE, config.model.model, figures)
    return figures
