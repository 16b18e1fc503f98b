"""`sixfold lab`."""

from sixfold.core.console.command import ConfigCommand, ModeCommand, ReportKind
from sixfold.studies.lab.config import CONFIGS

STUDIES = {
    "loopnest": "the convolution's loops divided in seven ways, beside the long-lived job",
    "matmul": "matrix products divided in three ways, and a model of when dividing pays",
    "activations": "forward and backward as two stages, with the activations kept in between",
    "job-per-step": "SGD with one Spark job for every step, beside the long-lived job",
}

COMMAND = ModeCommand(
    about=STUDIES,
    missing=f"say what to study: sixfold lab STUDY, of {', '.join(STUDIES)}",
    modes={
        name: ConfigCommand(
            config=CONFIGS[name],
            function="sixfold.studies.lab.run:run_study",
            summary=lambda done: done.lines,
            failed=lambda done: not done.right,
        )
        for name in STUDIES
    },
)
options, run = COMMAND.options, COMMAND.run

REPORTS = tuple(
    ReportKind(
        noun="a study", figures=f"{name}.json", remedy=f"`sixfold lab {name}` writes its page anew"
    )
    for name in STUDIES
)
