"""Settings of the laboratory, in the form from which the command line makes its options."""

from dataclasses import dataclass
from typing import Any

from sixfold.core.config import LARGEST_SEED
from sixfold.core.errors import UserError, problems_of, raise_problems
from sixfold.core.settings import Settings, option
from sixfold.distributed.engines.spark_master import parse_master, parse_settings
from sixfold.studies.convolution.geometry import Geometry


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(Settings):
    """Where the jobs run, and where the result goes."""

    master: str = option("local[2]", "Spark master: local[N], local-cluster[...], spark://...")
    spark_conf: tuple[str, ...] = option((), "a Spark setting; may be repeated", form="KEY=VALUE")
    partitions: int | None = option(
        None, "partitions of shuffles (default: one for every slot)", ge=1
    )
    out: str = option("", "directory for the result and the page (default runs/lab-STUDY)")

    def cross_problems(self) -> list[str]:
        """What is wrong with the settings of the session, as far as can be told without Spark."""
        return problems_of(
            lambda: parse_master(self.master), lambda: parse_settings(self.spark_conf)
        )


@dataclass(frozen=True, kw_only=True)
class ConvolutionOptions(Settings):
    """The convolution and its images; the default is that of the slide network."""

    images: int = option(1000, "images", ge=1)
    channels: int = option(3, "input channels", ge=1)
    size: str = option("32,32", "rows and columns of an image")
    maps: int = option(32, "output channels", ge=1)
    kernel: str = option("5,5", "rows and columns of the kernel")
    stride: str = option("1,1", "stride along rows and columns")
    padding: str = option("2,2", "zeros around an image, above and beside it")
    dilation: str = option("1,1", "distance of the kernel's taps along rows and columns")
    block: int = option(50, "images that are handled together", ge=1)
    seed: int = option(0, "seed of images and weights", ge=0)


@dataclass(frozen=True, kw_only=True)
class LoopnestOptions(Settings):
    """Which designs, in blocks of which size."""

    designs: str = option(
        "1,2,2b,3,batch,batch-channels,rows-columns", "designs, separated by commas"
    )
    iterate: str = option(
        "8,0,0,0", "design 1: rows, columns, kern_x and kern_y that a job covers; 0: all of them"
    )
    map_channels: int = option(
        8, "designs 1 and batch-channels: output channels that a task has; 0: all", ge=0
    )
    tile: str = option("8,8", "design 3: rows and columns of a tile of outputs; 0: all")
    grid: str = option(
        "", "rows-columns: parts along rows and columns (default: as many parts as slots)"
    )
    repeats: int = option(3, "timed runs of each design; the median counts", ge=1)
    seconds: float = option(10.0, "no further repeat of a design once it has taken so long", ge=0)
    check_images: int = option(
        2, "images of which every output of every design is held to the direct loop nest", ge=1
    )
    literal_jobs: int = option(
        20, "literal form of design 1: jobs that are run, of P*Q*R*S; 0: no literal forms", ge=0
    )
    literal_outputs: str = option(
        "4,4", "literal forms of designs 2 and 2b: rows and columns of outputs of the one image"
    )


@dataclass(frozen=True, kw_only=True)
class LoopnestConfig(Settings):
    """Everything that `sixfold lab loopnest` takes."""

    cluster: ClusterOptions = ClusterOptions()
    convolution: ConvolutionOptions = ConvolutionOptions()
    loopnest: LoopnestOptions = LoopnestOptions()


@dataclass(frozen=True, kw_only=True)
class MatmulOptions(Settings):
    """Which products, divided into how many parts."""

    products: str = option(
        "1024000x75x32,512,1024,2048,4096",
        "products MxKxN, separated by commas; one number for a square one. The first is the "
        "im2col product of 1000 images of 32x32 and the slide network's convolution",
    )
    ways: str = option("row,outer,block", "ways to divide them, separated by commas")
    block_rows: int = option(65536, "most rows of A that are handled together", ge=1)
    inner: int | None = option(
        None,
        "parts of k, for the outer product and the panels of blocks (default: the slots)",
        ge=1,
    )
    columns: int = option(2, "parts of n, for blocks", ge=1)
    repeats: int = option(3, "timed runs of each; the median counts", ge=1)
    seconds: float = option(4.0, "no further repeat of a product once it has taken so long", ge=0)
    seed: int = option(0, "seed of the factors", ge=0)


@dataclass(frozen=True, kw_only=True)
class MatmulConfig(Settings):
    """Everything that `sixfold lab matmul` takes."""

    cluster: ClusterOptions = ClusterOptions()
    matmul: MatmulOptions = MatmulOptions()


@dataclass(frozen=True, kw_only=True)
class ActivationsOptions(Settings):
    """Where activations are kept between forward and backward."""

    ways: str = option(
        "same,driver,file,redis",
        "same (worker, nothing is kept), driver, file, redis (needs redis-server), separated by "
        "commas",
    )
    store: str = option(
        "",
        "folder for `file`, as a URL or path that every worker reaches (default: a temporary one "
        "of this machine)",
    )
    repeats: int = option(3, "timed runs of each; the median counts", ge=1)
    seconds: float = option(10.0, "no further repeat of a way once it has taken so long", ge=0)


@dataclass(frozen=True, kw_only=True)
class ActivationsConfig(Settings):
    """Everything that `sixfold lab activations` takes."""

    cluster: ClusterOptions = ClusterOptions()
    convolution: ConvolutionOptions = ConvolutionOptions()
    activations: ActivationsOptions = ActivationsOptions()


@dataclass(frozen=True, kw_only=True)
class JobPerStepOptions(Settings):
    """The training that is run with one job a step, and otherwise."""

    data: str = option("synthetic:4000x3x32x32", "data set, as for `sixfold train`")
    model: str = option("slide", "network of the zoo")
    batches: str = option("10,100,1000,2000", "batch sizes, separated by commas")
    steps: int = option(13, "steps of each training; the clock starts after the third", ge=4)
    lr: float = option(0.01, "learning rate", ge=0)
    momentum: float = option(0.9, "momentum of sgd", ge=0, lt=1)
    seed: int = option(0, "seed of everything random", ge=0, lt=LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class JobPerStepConfig(Settings):
    """Everything that `sixfold lab job-per-step` takes."""

    cluster: ClusterOptions = ClusterOptions()
    job_per_step: JobPerStepOptions = JobPerStepOptions()


def numbers(name: str, text: str, count: int, found: list[str], *, least: int = 0) -> list[int]:
    """So many whole numbers from their list; ones where it is wrong, which is added to `found`.

    >>> problems = []
    >>> numbers("--tile", "8,8", 2, problems), numbers("--tile", "8", 2, problems)
    ([8, 8], [1, 1])
    >>> problems
    ['--tile 8: expected 2 whole numbers of at least 0, separated by commas']
    """
    try:
        values = [int(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) == count and all(value >= least for value in values):
        return values
    kind = f"{count} whole numbers" if count > 1 else "a whole number"
    found.append(f"{name} {text}: expected {kind} of at least {least}, separated by commas")
    return [max(least, 1)] * count


def geometry_of(config: ConvolutionOptions) -> Geometry:
    """The convolution; a `UserError` with everything that is wrong with it."""
    found = config.problems()
    pairs: dict[str, Any] = {}
    for name in ("size", "kernel", "stride", "padding", "dilation"):
        least = 0 if name == "padding" else 1
        rows, columns = numbers(f"--{name}", getattr(config, name), 2, found, least=least)
        pairs[name] = rows, columns
    raise_problems(found)
    try:
        return Geometry(batch=config.images, channels=config.channels, maps=config.maps, **pairs)
    except ValueError as error:
        raise UserError(f"--size {config.size} --kernel {config.kernel}: {error}") from None


CONFIGS: dict[str, type[Any]] = {
    "loopnest": LoopnestConfig,
    "matmul": MatmulConfig,
    "activations": ActivationsConfig,
    "job-per-step": JobPerStepConfig,
}
"""The settings of each study."""
