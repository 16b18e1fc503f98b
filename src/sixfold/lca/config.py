"""Settings of sparse coding, in the form from which the command line makes its options."""

import dataclasses
from dataclasses import dataclass

from sixfold.core.config import RunConfig
from sixfold.core.errors import UserError
from sixfold.core.settings import Settings, hints_of, option, same
from sixfold.data.config import MOST_SIDE
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.logical_shards import is_power_of_two
from sixfold.training.config import OptimizerConfig, TrainingConfig
from sixfold.training.step.schedule import parse_schedule


@dataclass(frozen=True, kw_only=True)
class InputConfig(Settings):
    """What is coded, and how it is prepared."""

    data: str = option(
        "digits",
        "data set, as for `sixfold train`, or movies:PATH (a folder of frame folders, .npy files "
        "and animated pictures)",
    )
    resize: int | None = option(
        None, "resize every image to this many pixels a side", ge=1, le=MOST_SIDE
    )
    split: str = option("train", "which images of the set", choices=("train", "test"))
    max_images: int | None = option(None, "use only the first so many images of the part", ge=1)
    on_error: str = option(
        "fail", "what to do with images that cannot be read", choices=("fail", "skip")
    )
    preprocess: str = option(
        "contrast",
        "none: pixels in [0, 1]; centre: less their mean; contrast: each image to mean 0 and "
        "deviation 1; whiten: contrast, then a whitening filter learned from the images",
        choices=("none", "centre", "contrast", "whiten"),
    )


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig(Settings):
    """The atoms."""

    atoms: int = option(64, "number of atoms", ge=1)
    kernel: str = option(
        "9", "size of an atom, N or ROWSxCOLUMNS; full: whole images (fully connected)"
    )
    stride: str = option("2", "pixels from one position to the next, N or ROWSxCOLUMNS")
    padding: str = option("half", "pixels beyond the image, N or ROWSxCOLUMNS; half: kernel // 2")
    boundary: str = option(
        "free",
        "beyond the image; free: counts for nothing, zero: must be reconstructed as zeros",
        choices=("free", "zero"),
    )
    initial: str = option(
        "patches",
        "first atoms: patches of the images, or random numbers",
        choices=("patches", "random"),
    )
    precision: str = option("float32", "arithmetic", choices=("float32", "float64"))


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig(Settings):
    """How a code comes about."""

    lambda_: float = option(0.1, "lambda: threshold of the potentials, weight of the penalty", ge=0)
    threshold_type: str = option("soft", "threshold", choices=("soft", "hard"))
    nonnegative: bool = option(False, "activations may not be negative")
    tau: float = option(100.0, "time constant of the potentials", gt=0)
    dt: float = option(1.0, "time step (where --adaptive: the first one)", gt=0)
    integrator: str = option("euler", "integration in time", choices=("euler", "exponential"))
    adaptive: bool = option(True, "time step of each element by itself, from its energy")
    state_momentum: float = option(0.9, "momentum of the potentials (0: none)", ge=0, lt=1)
    max_steps: int = option(1000, "most steps; rounded up to a multiple of --check-every", ge=1)
    tolerance: float = option(
        1e-4, "an element is done when its certificate is below this; 0: after --max-steps", ge=0
    )
    certificate: str = option(
        "gap",
        "gap: duality gap relative to the energy; optimality: largest violation of the optimality "
        "conditions relative to the threshold",
        choices=("gap", "optimality"),
    )
    polish: bool = option(
        True,
        "soft threshold: once next to no entry comes or goes, solve for the best code and check "
        "the optimality conditions",
    )
    check_every: int = option(20, "steps between readings of energy and certificate", ge=1)
    form: str = option(
        "auto",
        "how interactions are computed (auto: what needs less work for the sizes)",
        choices=("auto", "residual", "gram"),
    )

    def cross_problems(self) -> list[str]:
        """What does not go together."""
        found = []
        if self.integrator == "euler" and self.dt > 2 * self.tau > 0:
            found.append(
                f"--dt {self.dt}: Euler's method is unstable above 2 tau = {2 * self.tau}; use a "
                "smaller --dt or --integrator exponential"
            )
        if self.threshold_type == "hard" and self.certificate == "gap" and self.tolerance > 0:
            found.append(
                "--certificate gap: the hard threshold's objective is not convex and has no "
                "duality gap; use --certificate optimality"
            )
        if self.certificate == "optimality" and self.lambda_ == 0 and self.tolerance > 0:
            found.append("--certificate optimality: is relative to --lambda, which must be above 0")
        return found


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Settings):
    """How atoms follow from codes, and which images come when."""

    batch_size: int = option(64, "images per update, over all workers", ge=1)
    steps: int = option(200, "number of updates", ge=1)
    lr: float = option(1.0, "learning rate (peak, where a schedule varies it)", ge=0)
    momentum: float = option(0.5, "momentum of the update", ge=0, lt=1)
    schedule: str = option(
        "constant", "learning rate over time: constant, cosine or step:EVERY[:FACTOR] in updates"
    )
    resample_dead_after: int = option(
        20,
        "updates without any activation after which an atom is replaced by a patch; 0: never",
        ge=0,
    )
    order: str = option(
        "random",
        "which image comes when; random: a permutation each epoch; file: as listed; list: the "
        "listing cut into one run for each element of the batch; movie: each element its own movie",
        choices=("random", "file", "list", "movie"),
    )
    frames: int = option(0, "frames of a movie before its element turns to another; 0: all", ge=0)
    warm_start: str = option(
        "none",
        "begin with an older code; epoch: the same image's, frame: the one before in the movie",
        choices=("none", "epoch", "frame"),
    )
    list: str | None = option(None, "file with names of images, one a line: these, in this order")
    shards: int | None = same(TrainingConfig, "shards")
    grid: str = option(
        "auto", "processes by batch x rows x columns, such as 1x2x1 (auto: all by batch)"
    )
    seed: int = same(TrainingConfig, "seed")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(Settings):
    """What is written when images are coded."""

    run: str = option("", "run directory of `sixfold lca learn`, or its dictionary.safetensors")
    out: str = option("", "Parquet (.parquet) or Arrow (.arrow) file for the codes")
    data: str | None = option(None, "what is coded (default: what the dictionary learned from)")
    split: str = option("test", "which images of the set", choices=("train", "test"))
    max_images: int | None = same(InputConfig, "max_images")
    on_error: str = same(InputConfig, "on_error")
    warm_start: str = option(
        "none",
        "frame: begin each frame of a movie with the code of the one before",
        choices=("none", "frame"),
    )
    trace: bool = option(False, "write every reading of every element to FILE.trace.parquet")
    chunk: int = option(256, "images that a worker takes at a time", ge=1)


@dataclass(frozen=True, kw_only=True)
class LcaLearnConfig(Settings):
    """Everything that `sixfold lca learn` takes."""

    input: InputConfig = InputConfig()
    dictionary: DictionaryConfig = DictionaryConfig()
    dynamics: DynamicsConfig = DynamicsConfig()
    learn: LearnConfig = LearnConfig()
    engine: EngineConfig = EngineConfig()
    run: RunConfig = RunConfig()

    def cross_problems(self) -> list[str]:
        """What does not go together."""
        learn, found = self.learn, []
        shards = learn.shards
        if shards is not None and not (is_power_of_two(shards) and shards <= learn.batch_size):
            found.append(f"--shards {shards}: must be a power of two, and at most --batch-size")
        if learn.warm_start == "frame" and learn.order != "movie":
            found.append("--warm-start frame: needs --order movie")
        try:
            schedule = parse_schedule(OptimizerConfig(lr=learn.lr, schedule=learn.schedule))
        except UserError as error:
            found += error.problems
        else:
            if schedule.kind == "plateau":
                found.append(
                    f"--schedule {learn.schedule}: a dictionary is not validated, so there is no "
                    "plateau to be found; give another schedule"
                )
        return found


def _unset(section: type[DynamicsConfig]) -> type[DynamicsConfig]:
    """A section whose values are None where nothing was given."""
    hints = hints_of(DynamicsConfig)
    for field in dataclasses.fields(DynamicsConfig):
        section.__annotations__[field.name] = hints[field.name] | None
        setattr(section, field.name, dataclasses.field(default=None, metadata=field.metadata))
    return dataclass(frozen=True, kw_only=True)(section)


@_unset
class DynamicsChanges(DynamicsConfig):
    """How a code comes about; what is not given is as it was at the learning."""

    def cross_problems(self) -> list[str]:
        """Nothing before the learning's settings are known."""
        return []


@dataclass(frozen=True, kw_only=True)
class LcaEncodeConfig(Settings):
    """Everything that `sixfold lca encode` takes."""

    encode: EncodeConfig = EncodeConfig()
    dynamics: DynamicsChanges = DynamicsChanges()
    engine: EngineConfig = EngineConfig()
