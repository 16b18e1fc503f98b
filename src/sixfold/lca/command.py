"""`sixfold lca learn` and `sixfold lca encode`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand, ModeCommand, ReportKind
from sixfold.core.lazy import lazily
from sixfold.core.run_directory import typed
from sixfold.lca.config import LcaEncodeConfig, LcaLearnConfig
from sixfold.lca.results import EncodeResult, LearnResult


def learned(result: dict[str, Any]) -> list[str]:
    """The closing lines of a learning."""
    found, lines = typed(LearnResult, result), []
    if speed := found.updates_per_s:
        images_per_s = speed * found.images / found.steps
        lines.append(
            f"speed              {speed:.3g} updates/s, {images_per_s:,.0f} images/s on "
            f"{found.workers} workers ({found.engine})"
        )
    return [
        *lines,
        f"interaction        {found.form} form, {found.lane_width} slots of a batch at a time",
        f"wall time          {found.wall_s:.1f} s",
        f"dictionary         sha256 {found.dictionary_sha256}",
        f"report             {found.report}",
    ]


def encoded(figures: dict[str, Any]) -> list[str]:
    """The closing lines of a coding."""
    found = typed(EncodeResult, figures)
    return [
        f"images             {found.images:,}",
        f"energy             {found.energy:.6g} (mean)",
        f"error              {found.error:.3%} of |x|^2",
        f"sparsity           {found.sparsity:.2%} of the entries are zero",
        f"certified          {found.certified:.1%}, after {found.steps:.0f} steps each",
        f"codes              {found.file}",
    ]


COMMAND = ModeCommand(
    modes={
        "learn": ConfigCommand(
            config=LcaLearnConfig, function="sixfold.lca.run:lca_learn", summary=learned
        ),
        "encode": ConfigCommand(
            config=LcaEncodeConfig,
            function="sixfold.lca.run:lca_encode",
            summary=encoded,
            words={"run": ("RUN", "run directory of `lca learn`")},
        ),
    },
    about={
        "learn": "learn a dictionary for sparse codes of images",
        "encode": "code images with a learned dictionary; the dynamics are those of the learning "
        "where nothing else is said",
    },
    missing="say what to do: sixfold lca learn, or sixfold lca encode RUN",
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="a dictionary",
        sections=("dictionary",),
        write=lambda run, *_: lazily("sixfold.lca.report:write_page")(run),
        unfinished=True,
    ),
)
