"""`sixfold lca learn` and `sixfold lca encode`."""

from typing import Any

from sixfold.core.console.command import ConfigCommand, ModeCommand, ReportKind
from sixfold.core.lazy import lazily
from sixfold.lca.config import LcaEncodeConfig, LcaLearnConfig


def learned(result: dict[str, Any]) -> list[str]:
    """The closing lines of a learning."""
    lines, speed = [], result.get("updates_per_s")
    if speed:
        images_per_s = speed * result["images"] / result["steps"]
        lines.append(
            f"speed              {speed:.3g} updates/s, {images_per_s:,.0f} images/s on "
            f"{result['workers']} workers ({result['engine']})"
        )
    return [
        *lines,
        f"interaction        {result['form']} form, {result['lane_width']} elements a lane",
        f"wall time          {result['wall_s']:.1f} s",
        f"dictionary         sha256 {result['dictionary_sha256']}",
        f"report             {result['report']}",
    ]


def encoded(figures: dict[str, Any]) -> list[str]:
    """The closing lines of a coding."""
    return [
        f"images             {figures['images']:,}",
        f"energy             {figures['energy']:.6g} (mean)",
        f"error              {figures['error']:.3%} of |x|^2",
        f"sparsity           {figures['sparsity']:.2%} of the entries are zero",
        f"certified          {figures['certified']:.1%}, after {figures['steps']:.0f} steps each",
        f"codes              {figures['file']}",
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
