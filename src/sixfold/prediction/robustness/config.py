"""Settings of `sixfold evaluate`, in the form from which the command line makes its options."""

from dataclasses import dataclass

from sixfold.core.config import LARGEST_SEED
from sixfold.core.errors import UserError
from sixfold.core.settings import Settings, option
from sixfold.distributed.config import EngineConfig
from sixfold.prediction.config import ScoringConfig


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(ScoringConfig):
    """Which network is evaluated, on what, and where the result goes."""

    data: str | None = option(None, "data set (default: what the run was trained on)")
    max_images: int | None = option(
        None, "at most so many images, evenly spaced over the part (default: all)", ge=1
    )
    out: str | None = option(None, "directory for result and report (default: RUN/robustness)")


@dataclass(frozen=True, kw_only=True)
class DistortionConfig(Settings):
    """What is done to the images: strengths of each distortion, separated by commas; none: ''."""

    downsample: str = option(
        "1.5,2,3,4", "factors by which rows and columns are fewer; brought back to size bilinearly"
    )
    noise: str = option(
        "0.02,0.05,0.1,0.2", "standard deviations of Gaussian noise, as parts of full scale"
    )
    blur: str = option("0.5,1,1.5,2", "standard deviations of a Gaussian blur, in pixels")
    rotate: str = option("5,10,20,40", "angles in degrees, to either side at random")
    barrel: str = option(
        "0.1,0.2,0.4,0.8", "barrel distortion: by how much the middle is magnified, beyond 1"
    )
    elastic: str = option(
        "0.5,1,1.5,2", "elastic distortion: standard deviations of the displacement, in pixels"
    )
    seed: int = option(
        0, "seed of noise, sides of rotation and elastic displacements", ge=0, lt=LARGEST_SEED
    )
    examples: int = option(6, "images that the report shows under every distortion", ge=0)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Settings):
    """Everything that `sixfold evaluate` takes."""

    evaluation: EvaluationConfig = EvaluationConfig()
    distortion: DistortionConfig = DistortionConfig()
    engine: EngineConfig = EngineConfig()

    def cross_problems(self) -> list[str]:
        """What is missing, and strengths that are none."""
        from sixfold.prediction.robustness.distortions import planned

        found = self.engine.range_problems("evaluate")
        if not self.evaluation.run:
            found.append("give the run to evaluate: sixfold evaluate RUN")
        try:
            planned(self.distortion)
        except UserError as error:
            found = [*error.problems, *found]
        return found
