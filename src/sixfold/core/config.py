"""The settings of a run: one tree of frozen dataclasses.

The command line, its help, `config.json` and the hash in a run's default name are all made from
these classes, so an option exists in one place. Precedence is argument, then configuration file,
then environment, then the defaults below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sixfold.core.settings import Settings, build_tree, option

IMAGE_COLUMN = "column of a Parquet table that holds the images (default: found by its name)"
ON_BAD = "what to do with images that cannot be read, and rows that have no label"
LABEL_COLUMN = "column of a Parquet table that holds the labels (default: found by its name)"


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings):
    """Which images, and how they reach the network."""

    data: str = option(
        "digits",
        "data set: digits, mnist:DIR, cifar10:PATH, cells:PATH, "
        "folder:PATH, parquet:PATH, shards:DIR, synthetic:NxCxHxW",
    )
    resize: int | None = option(None, "resize every image to this many pixels a side")
    validation: float = option(
        0.0, "part of the training images set aside, by class, to select on (0 to 0.5)"
    )
    test_split: float | None = option(
        None, "part of the images set aside, by class, to test on, if the set has none (to 0.5)"
    )
    images: int | None = option(
        None, "train on so many images only, stratified by class (default: all)"
    )
    augment: str = option(
        "none", "augmentation of training images: none, or a list such as crop:PAD,flip"
    )
    image_column: str | None = option(None, IMAGE_COLUMN)
    label_column: str | None = option(None, LABEL_COLUMN)
    on_bad: str = option("fail", ON_BAD, choices=("fail", "skip"))


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Which network."""

    model: str = option(
        "lenet5", "a network of the zoo (`sixfold models`) or your own: package.module:factory"
    )
    model_args: str = option(
        "", "arguments for the network's factory, such as width=0.5,dropout=0.1"
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """How weights follow from gradients."""

    optimizer: str = option("sgd", "update rule", choices=("sgd", "adam"))
    lr: float = option(0.01, "learning rate (peak, where a schedule varies it)")
    momentum: float = option(0.9, "momentum of sgd")
    weight_decay: float = option(0.0, "weight decay (L2, added to the gradient)")
    schedule: str = option(
        "constant", "learning rate over time: constant, cosine, or step:EPOCHS[:FACTOR]"
    )
    warmup: float = option(0.0, "epochs of linear warm-up of the learning rate")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """How long, in what batches, and with which arithmetic."""

    batch_size: int = option(64, "images per step, over all workers")
    epochs: float | None = option(
        None, "passes over the training images (default 10 unless --steps is given)"
    )
    steps: int | None = option(None, "number of steps, instead of --epochs")
    seed: int = option(0, "seed of everything random")
    precision: str = option(
        "float32",
        "arithmetic; bf16: layers compute with bfloat16, weights and sums stay float32",
        choices=("float32", "float64", "bf16"),
    )
    batch_norm: str = option(
        "shard",
        "statistics of batch-norm: each logical shard's own, or the whole batch's",
        choices=("shard", "sync"),
    )
    shards: int | None = option(
        None, "logical shards a step (a power of two; default: from the batch size)"
    )
    evaluate_every: float = option(1.0, "epochs between evaluations; 0: only at the end")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig(Settings):
    """How a rank computes its logical shards."""

    device: str = option(
        "cpu",
        "what computes shards: cpu, or cuda (rank r on GPU r modulo their number; --strategy sync "
        "on --engine local or inline)",
        choices=("cpu", "cuda"),
    )
    tf32: bool = option(
        False, "cuda: products and convolutions of float32 take 10 bits of each factor's fraction"
    )
    micro_batch: str = option(
        "auto",
        "images of a shard that are computed at a time: auto (so many that their maps stay in a "
        "cache, by a formula on the network's shapes), off (the whole shard), or a number",
    )
    tuning: str | None = option(
        None, "take the micro-batch from this file of `sixfold bench tune`; the run keeps a copy"
    )


@dataclass(frozen=True, kw_only=True)
class BeginningConfig(Settings):
    """What the training begins with."""

    weights: str | None = option(
        None, "begin with the weights of this run, checkpoint, weights file or state dict (.pth)"
    )
    mask: str | None = option(
        None, "keep the weights that this mask file removes at zero (see `sixfold tickets`)"
    )
    shared: str | None = option(
        None, "keep equal the weights that this cluster file joins (see `sixfold compress`)"
    )
    first_step: int = option(
        0, "begin at this step, from 0, of the schedule and of the order of the data"
    )


@dataclass(frozen=True, kw_only=True)
class StrategyConfig(Settings):
    """What ranks do with steps."""

    strategy: str = option(
        "sync",
        "how the work is divided (`sixfold strategies` lists the ways); auto: the way, and the "
        "number of workers up to --workers, that `sixfold plan` predicts to be quickest of those "
        "that equal serial training bit for bit (with --exact false, up to rounding)",
    )
    grid: str = option(
        "",
        "model_parallel: ranks along each axis, such as batch=2,rows=2,cols=1,cout=1,cin=1; their "
        "product is --workers (default: all along rows; auto: as `sixfold plan` predicts)",
    )
    exact: bool = option(
        True, "add gradients in a fixed order: the same bits for any number of workers"
    )
    machine: str | None = option(
        None, "auto: file in which measurements of this machine are kept (see `sixfold plan`)"
    )
    servers: int = option(1, "param_server: processes that own the weights, each a slice of them")
    staleness: int | None = option(
        None,
        "param_server: most updates between a pull of weights and the push of the gradient "
        "(default: 4 for every worker)",
    )
    merge_every: int = option(
        100, "hogwild: steps between two meetings of all workers, where groups of them are merged"
    )


@dataclass(frozen=True, kw_only=True)
class LocalSgdConfig(Settings):
    """How workers that train apart become one again (--strategy local_sgd)."""

    local_steps: int = option(16, "steps that each worker makes by itself between two merges")
    merge: str = option(
        "mean",
        "how weights are merged",
        choices=("mean", "max_delta", "map_delta", "best", "genetic", "nesterov"),
    )
    align: bool = option(
        False, "match feature maps by permutation before a merge, and report how many had moved"
    )
    groups: int = option(1, "groups of workers; each merges by itself, all become one at the end")
    swap_every: int | None = option(
        None, "merges after which each group hands one member on to the next group"
    )
    post_local: float = option(0.0, "epochs of synchronous training (as `sync`) at the beginning")
    compare_serial: bool = option(
        False, "train serially over the same images too, and report its deltas beside the workers'"
    )
    outer_lr: float = option(0.7, "learning rate of the outer optimizer (nesterov)")
    outer_momentum: float = option(0.9, "momentum of the outer optimizer (nesterov)")
    population: int = option(16, "networks in each generation (genetic)")
    generations: int = option(4, "generations that follow the workers' own networks (genetic)")
    elite: int = option(2, "fittest networks that go on unchanged (genetic)")
    mutation_rate: float = option(0.05, "probability that a feature map is changed (genetic)")
    mutation_scale: float = option(
        0.02, "size of that change, relative to the map's weights (genetic)"
    )


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Settings):
    """Where the ranks run."""

    engine: str = option("local", "where ranks run", choices=("inline", "local", "spark"))
    workers: int | None = option(None, "number of ranks (default: one per core)")
    master: str | None = option(
        None, "Spark master: local[N], local-cluster[...], spark://... (default: spark-submit's)"
    )
    spark_conf: tuple[str, ...] = option((), "a Spark setting; may be repeated", form="KEY=VALUE")
    max_restarts: int | None = option(
        None, "restarts after a lost rank (default: 0 on local, 3 on spark; param_server: 10 each)"
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """The run directory."""

    out: str | None = option(None, "run directory (default runs/<name>-<hash of the settings>)")
    resume: bool = option(False, "go on from the last checkpoint in the run directory")
    overwrite: bool = option(False, "replace an older run in the run directory")
    checkpoint_every: int | None = option(
        None, "steps between checkpoints (default: every epoch, and every minute)"
    )
    keep: int = option(2, "how many checkpoints to keep, besides the best")
    keep_at: tuple[str, ...] = option(
        (),
        "a step whose checkpoint stays, in snapshots/ (0: the initial weights); may be repeated",
        form="STEP",
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Everything that `sixfold train` takes."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    compute: ComputeConfig = ComputeConfig()
    beginning: BeginningConfig = BeginningConfig()
    strategy: StrategyConfig = StrategyConfig()
    local_sgd: LocalSgdConfig = LocalSgdConfig()
    engine: EngineConfig = EngineConfig()
    run: RunConfig = RunConfig()


@dataclass(frozen=True, kw_only=True)
class PredictionConfig(Settings):
    """What is classified, with what, and where the result goes."""

    run: str = option(
        "", "run directory of `sixfold train`, its model.safetensors, or a model.sixz"
    )
    data: str = option(
        "digits", "data set, as for `sixfold train`, or images:PATH for pictures without labels"
    )
    out: str = option("", "Parquet file for the result; figures go to FILE.json beside it")
    part: str = option(
        "auto",
        "which images; auto: the test part of a set that came with one or that the run was "
        "trained on, else all",
        choices=("auto", "test", "train", "all"),
    )
    resize: int | None = option(
        None, "resize images to this many pixels a side (default: what the network was trained on)"
    )
    sparse: str | None = option(
        None, "run pruned layers in the sparse forms that this file of `sixfold sparse` names"
    )
    image_column: str | None = option(None, IMAGE_COLUMN)
    label_column: str | None = option(None, LABEL_COLUMN)
    id_column: str | None = option(None, "column of a Parquet table that names its rows; kept")
    keep_columns: str = option("", "further columns to keep beside the predictions, such as a,b")
    on_bad: str = option("fail", ON_BAD, choices=("fail", "skip"))
    trust_model: bool = option(
        False, "run the code that the weights name even if it is not your project's"
    )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Settings):
    """Everything that `sixfold predict` takes."""

    prediction: PredictionConfig = PredictionConfig()
    engine: EngineConfig = EngineConfig()


@dataclass(frozen=True, kw_only=True)
class PreparationConfig(Settings):
    """What is prepared, and where to."""

    source: str = option("", "data specification, such as folder:PATH or cifar10:PATH")
    destination: str = option("", "folder for the tensor shards")
    resize: int | None = option(None, "resize every image to this many pixels a side")
    image_column: str | None = option(None, IMAGE_COLUMN)
    label_column: str | None = option(None, LABEL_COLUMN)
    on_bad: str = option("fail", ON_BAD, choices=("fail", "skip"))


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Settings):
    """Everything that `sixfold prepare` takes."""

    preparation: PreparationConfig = PreparationConfig()
    engine: EngineConfig = EngineConfig()


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
    rounds: int = option(5, "rounds of pruning, each followed by training")
    bits: str = option(
        "5,conv=8",
        "bits of a shared weight (2**bits values, one of them zero): 5, or by kind or layer such "
        "as 5,conv=8",
    )
    centroids: str = option(
        "linear",
        "where k-means begins: evenly spaced values, quantiles, or weights drawn at random",
        choices=("linear", "density", "random"),
    )
    coder: str = option("huffman", "entropy coder", choices=("huffman", "ans"))
    prune_epochs: float = option(3.0, "epochs of training after each round of pruning")
    share_epochs: float = option(2.0, "epochs of training of the shared values; 0: none")
    lr: float | None = option(
        None, "learning rate after pruning (default: the run's); falls to 0 in every round"
    )
    weight_decay: float | None = option(None, "weight decay after pruning (default: the run's)")
    share_lr: float = option(1e-4, "learning rate of Adam on the shared values")
    max_accuracy_loss: float | None = option(
        None,
        "search sparsity and bits of each layer for the smallest file that loses at most this "
        "part of the validation accuracy (0.001: a tenth of a percentage point)",
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


@dataclass(frozen=True, kw_only=True)
class TicketDataConfig(DataConfig):
    """Which images, and how they reach the network."""

    validation: float = option(
        0.1, "part of the training images that tickets are judged on, by class (above 0, to 0.5)"
    )


@dataclass(frozen=True, kw_only=True)
class TrellisConfig(Settings):
    """Which sparse networks are trained from the one dense run."""

    thresholds: str = option(
        "4",
        "how much is pruned: a number M of evenly spaced quantiles of the weights' magnitudes (4: "
        "20, 40, 60, 80%; with --method iterative: M rounds at --rates), or a list of sparsities "
        "such as 0.5,0.8,0.9",
    )
    rewinds: str = option(
        "0", "steps or epochs of the dense run that tickets are reset to, such as 0,500,2ep"
    )
    method: str = option(
        "one-shot",
        "prune the dense network once for each sparsity, or in rounds, each from the weights that "
        "the one before has trained",
        choices=("one-shot", "iterative"),
    )
    scope: str = option(
        "global",
        "rank the magnitudes of all layers together, or prune every layer by itself",
        choices=("global", "layerwise"),
    )
    rates: str = option(
        "",
        "part of what is left that a round removes, by kind of layer, such as "
        "conv=0.1,fc=0.2,output=0.1 (0.2 where not named); without it all kinds are alike",
    )
    controls: str = option(
        "",
        "in the same grid: reinit (the masks with fresh weights), random (as many weights kept of "
        "every layer, at random places), or both: reinit,random",
    )
    seeds: int = option(
        1, "how often each is trained, with another order of the data (and draw of a control)"
    )
    instability: int = option(
        0,
        "points, 11 or more, at which the error is taken on the line between two tickets trained "
        "with different orders of the data; 0: not done",
    )
    transfer: str = option(
        "", "another data set, on which the best ticket is trained against a fresh network"
    )


@dataclass(frozen=True, kw_only=True)
class TicketsConfig(Settings):
    """Everything that `sixfold tickets` takes."""

    trellis: TrellisConfig = TrellisConfig()
    data: TicketDataConfig = TicketDataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    engine: EngineConfig = EngineConfig()
    run: RunConfig = RunConfig()


def configure(**settings: Any) -> TrainConfig:
    """Settings of a training from plain names, as the command line has them.

    Args:
        settings: any field of any section of `TrainConfig`. With ``resume=True`` and ``out`` what
            is not given is taken from the run.

    Raises:
        UserError: with every unknown name and every value of a wrong type.

    >>> configure(model="slide", batch_size=100, workers=2).training.batch_size
    100
    """
    return build_tree(TrainConfig, settings)
