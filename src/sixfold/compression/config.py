"""Settings of a compression."""

from dataclasses import dataclass

from sixfold.core.checks import unknown
from sixfold.core.config import resume_problems
from sixfold.core.settings import Settings, option
from sixfold.distributed.config import EngineConfig

STAGES = {"prune": "pruned", "share": "weights shared", "code": "coded"}  # what each has done
STARTS = ("linear", "density", "random")


@dataclass(frozen=True, kw_only=True)
class CompressionConfig(Settings):
    """What is compressed, how far, and how it is trained again."""

    run: str = option("", "run directory of `sixfold train`, or its model.safetensors")
    trust_model: bool = option(
        False, "run the code that the weights name even if it is not your project's"
    )
    stages: str = option("prune,share,code", "stages to go through: some of prune,share,code")
    sparsity: str = option(
        "0.9",
        "part of the weights to be removed: 0.9, or by kind or layer such as "
        "0.9,conv=0.7,output=0.8,features.0=0.34",
    )
    scope: str = option(
        "layerwise",
        "where a single --sparsity holds: in every layer, or over all of them, so that small "
        "weights go wherever they are",
        choices=("layerwise", "global"),
    )
    rounds: int = option(5, "rounds of pruning, each followed by training", ge=1)
    bits: str = option(
        "5,conv=8",
        "bits of a shared weight (2**bits values, one of them zero): 5, or by kind or layer such "
        "as 5,conv=8",
    )
    kmeans_init: str = option(
        "linear",
        "where k-means begins: evenly spaced values, quantiles, or weights drawn at random",
        choices=STARTS,
    )
    coder: str = option("huffman", "entropy coder", choices=("huffman", "ans"))
    prune_epochs: float = option(3.0, "epochs of training after each round of pruning", gt=0)
    share_epochs: float = option(2.0, "epochs of training of the shared values; 0: none", ge=0)
    lr: float | None = option(
        None, "learning rate after pruning (default: the run's); falls to 0 in every round", gt=0
    )
    weight_decay: float | None = option(
        None, "weight decay after pruning (default: the run's)", ge=0
    )
    share_lr: float = option(1e-4, "learning rate of Adam on the shared values", gt=0)
    max_accuracy_loss: float | None = option(
        None,
        "search sparsity and bits of each layer for the smallest file that loses at most this "
        "part of the validation accuracy (0.001: a tenth of a percentage point)",
        ge=0,
        lt=1,
    )
    data: str | None = option(None, "data set (default: what the run was trained on)")
    onnx: str | None = option(None, "write the decompressed network to this ONNX file too")
    out: str | None = option(None, "directory for the result (default: RUN-compressed)")
    resume: bool = option(False, "go on with what is in the directory")
    overwrite: bool = option(False, "replace an older result in the directory")


@dataclass(frozen=True, kw_only=True)
class CompressConfig(Settings):
    """Everything that `sixfold compress` takes."""

    compression: CompressionConfig = CompressionConfig()
    engine: EngineConfig = EngineConfig()

    def cross_problems(self) -> list[str]:
        """What is missing, and what does not go together."""
        settings, found = self.compression, list[str]()
        if not settings.run:
            found.append("give the run to compress: sixfold compress RUN")
        names = settings.stages.split(",")
        if strange := [name for name in names if name not in STAGES]:
            found.append(unknown("stage", strange[0], STAGES))
        if settings.max_accuracy_loss is not None and set(names) != set(STAGES):
            found.append("--max-accuracy-loss searches over all stages: leave --stages out")
        return found + resume_problems(settings)
