"""Settings that commands share. Precedence is argument, file, environment, default."""

from dataclasses import dataclass
from typing import Any

from sixfold.core.settings import Settings, option

TRUST_MODEL = "run the code that a run or its weights name even if it is not your project's"
LARGEST_SEED = 2**63  # beyond what torch takes

PIXEL_RANGE = (
    "values of floating-point images: 0-1 or 0-255, which become 8-bit pixels, or any, which are "
    "kept as they are (default: told from the first rows of each file of a table)"
)
ANY_RANGE = "any"
PIXEL_RANGES = ("0-1", "0-255", ANY_RANGE)
IMAGE_COLUMN = "column of a Parquet table that holds the images (default: found by its name)"
ON_ERROR = "what to do with images that cannot be read, and rows that have no label"
LABEL_COLUMN = (
    "column of a Parquet table that holds the labels (default: found by its name); several, "
    "separated by commas, for several numbers or labels an image"
)
WEIGHT_COLUMN = "column of a Parquet table that says how much each image counts"
TARGET = "what labels are: auto (as --loss takes them), classes, binary, multi_label, regression"


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """The run directory."""

    out: str | None = option(None, "run directory (default runs/<name>-<hash of the settings>)")
    resume: bool = option(False, "resume from the last checkpoint in the run directory")
    overwrite: bool = option(False, "replace an older run in the run directory")
    trust_model: bool = option(False, TRUST_MODEL)
    checkpoint_every: int | None = option(
        None, "steps between checkpoints (default: every epoch, and every minute)", ge=1
    )
    keep_checkpoints: int = option(2, "how many checkpoints to keep, apart from the best", ge=1)
    save_at_steps: tuple[str, ...] = option(
        (),
        "a step whose checkpoint stays, in snapshots/ (0: the initial weights); may be repeated",
        form="STEP",
    )

    def cross_problems(self) -> list[str]:
        """What does not go together."""
        found = [
            f"--save-at-steps {step}: must be a whole number of steps, from 0"
            for step in self.save_at_steps
            if not step.isdecimal()
        ]
        return [*found, *resume_problems(self)]


def resume_problems(run: Any) -> list[str]:
    """A line if a run is both to be resumed and to be replaced."""
    both = run.resume and run.overwrite
    return ["--resume and --overwrite exclude each other: give one"] if both else []
