"""`sixfold sweep time`, `quality`, `delay` and `roofline`."""

from sixfold.core.console.command import ConfigCommand, ModeCommand, ReportKind
from sixfold.core.lazy import lazily
from sixfold.studies.sweep.config import (
    SweepDelayConfig,
    SweepQualityConfig,
    SweepRooflineConfig,
    SweepTimeConfig,
)

MODES = {
    "time": "time every combination of settings; speed-up, efficiency, and the laws they follow",
    "quality": "train every combination of settings; accuracy, and what each setting does to it",
    "delay": "measure what Spark adds to jobs of many sizes, from its own events, and fit laws",
    "roofline": "the ceiling that Spark's delays put over the machine, and what was measured on it",
}

COMMAND = ModeCommand(
    about=MODES,
    missing="say what to sweep over: "
    + "; ".join(f"sixfold sweep {name}: {what}" for name, what in MODES.items()),
    modes={
        "time": ConfigCommand(
            config=SweepTimeConfig,
            function="sixfold.studies.sweep.run:sweep_time",
            summary=lazily("sixfold.studies.sweep.report:time_lines"),
        ),
        "quality": ConfigCommand(
            config=SweepQualityConfig,
            function="sixfold.studies.sweep.run:sweep_quality",
            summary=lazily("sixfold.studies.sweep.report:quality_lines"),
        ),
        "delay": ConfigCommand(
            config=SweepDelayConfig,
            function="sixfold.studies.sweep.delay_run:sweep_delay",
            summary=lazily("sixfold.studies.sweep.delay_report:delay_lines"),
        ),
        "roofline": ConfigCommand(
            config=SweepRooflineConfig,
            function="sixfold.studies.sweep.roofline_run:sweep_roofline",
            summary=lazily("sixfold.studies.sweep.roofline_report:roofline_lines"),
            events=False,
        ),
    },
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="a sweep", sections=("sweep",), write=lazily("sixfold.studies.sweep.report:write_page")
    ),
    ReportKind(
        noun="a sweep",
        sections=("delay",),
        write=lazily("sixfold.studies.sweep.delay_report:write_page"),
    ),
    ReportKind(
        noun="a roofline",
        what="roofline",
        write=lazily("sixfold.studies.sweep.roofline_report:write_page"),
    ),
)
