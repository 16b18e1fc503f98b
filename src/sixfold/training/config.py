"""Settings of a training."""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.config import LARGEST_SEED, RunConfig
from sixfold.core.cpu_isa import INSTRUCTION_SETS, NATIVE
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.settings import Settings, build_or_tell_all, option
from sixfold.data.config import DataConfig
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.logical_shards import LARGEST_COUNT
from sixfold.models.config import ModelConfig
from sixfold.training.losses.config import LossConfig
from sixfold.training.tracking.config import TrackingConfig

MOST = 10**12  # epochs or steps: beyond any training, and within the numbers that count them


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """How weights follow from gradients."""

    optimizer: str = option(
        "sgd",
        "update rule: sgd, adam, adamw, rmsprop, nadam, radam, adagrad, adadelta, adamax, asgd, "
        "rprop, muon, lars, torch.optim:NAME, or an element-wise class of your own, "
        "package.module:Class",
    )
    optimizer_args: str = option(
        "", "arguments of the update rule, as NAME=VALUE,...: betas=(0.9,0.95),eps=1e-6"
    )
    lr: float = option(0.01, "learning rate (peak, where a schedule varies it)", ge=0)
    momentum: float = option(0.9, "momentum of sgd and lars", ge=0, lt=1)
    nesterov: bool = option(False, "Nesterov's momentum for sgd")
    weight_decay: float = option(
        0.0,
        "weight decay (L2, added to the gradient; adamw, muon: of the weights themselves)",
        ge=0,
    )
    lr_group: tuple[str, ...] = option(
        (),
        "factor of the learning rate of parameters, or all of a module, by name: 'head.*=10'; may "
        "be repeated, the last that matches decides",
        form="PATTERN=FACTOR",
    )
    weight_decay_group: tuple[str, ...] = option(
        (), "weight decay of parameters by name, likewise: '*.bias=0'", form="PATTERN=DECAY"
    )
    freeze: str = option(
        "",
        "parameters, or all of a module, that keep their values: PATTERN,... as of --lr-group; "
        "norms in it keep their statistics",
    )
    unfreeze: tuple[str, ...] = option(
        (),
        "parameters of --freeze that are trained from an epoch on: 'layer4.*=2', after two epochs; "
        "may be repeated",
        form="PATTERN=EPOCH",
    )
    no_decay: str = option("", "parameters without weight decay: norms, biases, or norms,biases")
    clip_value: float | None = option(
        None, "bring every element of the gradient into [-VALUE, VALUE]", gt=0
    )
    clip_norm: float | None = option(
        None, "scale the gradient so that its norm over all parameters is at most this", gt=0
    )
    ema: float | None = option(
        None,
        "evaluate and save the moving average of the weights, with this decay (0.999); the raw "
        "weights are saved beside",
        gt=0,
        lt=1,
    )
    schedule: str = option(
        "constant",
        "learning rate over time: constant, cosine, step:EPOCHS[:FACTOR], "
        "multistep:EPOCH,...[:FACTOR], polynomial[:POWER], one-cycle[:RISE], "
        "restarts:EPOCHS[:TIMES], or plateau[:PATIENCE[:FACTOR]] by the metric of --best",
    )
    warmup: float = option(0.0, "epochs of linear warm-up of the learning rate", ge=0)

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """Why a class that only the run names is not used: its code may be a stranger's."""
        is_torch = self.optimizer.startswith("torch.optim:")
        if "optimizer" not in taken or ":" not in self.optimizer or is_torch:
            return []
        return _module_problems(self.optimizer, file, "optimizer")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """How long, in what batches, and with which arithmetic."""

    batch_size: int = option(64, "images per step, over all workers", ge=1)
    epochs: float | None = option(
        None, "passes over the training images (default 10 unless --steps is given)", gt=0, le=MOST
    )
    steps: int | None = option(None, "number of steps, instead of --epochs", ge=1, le=MOST)
    seed: int = option(0, "seed of everything random", ge=0, lt=LARGEST_SEED)
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
        None,
        "logical shards a step (a power of two; default: from the batch size)",
        ge=1,
        le=LARGEST_COUNT,
    )
    evaluate_every: float = option(1.0, "epochs between evaluations; 0: only at the end", ge=0)


@dataclass(frozen=True, kw_only=True)
class SelectionConfig(Settings):
    """What is selected on the validation part, and when a training stops before its end."""

    best: str = option(
        "", "metric of the validation part by which the best checkpoint is kept (default accuracy)"
    )
    final_weights: str = option(
        "last",
        "weights that are reported and saved: of the last step, or of the best evaluation",
        choices=("last", "best"),
    )
    early_stopping: str = option(
        "",
        "stop when this metric of the validation part has not improved in PATIENCE evaluations: "
        "METRIC[:PATIENCE], such as loss:5",
    )
    stop_at: str = option(
        "",
        "stop when an evaluation of the validation part finds METRIC=VALUE or better, such as "
        "accuracy=0.9 or loss=0.3",
        form="METRIC=VALUE",
    )
    max_time: str = option(
        "", "make no step after this time, such as 30m or 1h30m; --resume goes on"
    )
    callback: tuple[str, ...] = option(
        (),
        "call this object at steps and epochs, which may stop, change the rate or log; may be "
        "repeated",
        form="PKG.MOD:FACTORY",
    )

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """Why a callback that only the run names is not used: its code may be a stranger's."""
        if "callback" not in taken:
            return []
        return [line for name in self.callback for line in _module_problems(name, file, "callback")]


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
    cpu_isa: str = option(
        NATIVE,
        "instruction set that libraries compute with, so that hosts whose processors differ give "
        "the same bits: native (each library's own choice), or the lowest that all hosts have",
        choices=(NATIVE, *INSTRUCTION_SETS),
    )
    micro_batch: str = option(
        "auto",
        "images of a shard that are computed at a time: auto (so many that their maps stay in a "
        "cache, by a formula on the network's shapes), off (the whole shard), or a number",
    )
    tuning: str | None = option(
        None,
        "take the micro-batch from this file (`python -m benchmarks.bench tune`) and keep a copy",
    )


@dataclass(frozen=True, kw_only=True)
class InitializationConfig(Settings):
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
    start_step: int = option(
        0, "begin at this step, from 0, of the schedule and of the order of the data", ge=0
    )


@dataclass(frozen=True, kw_only=True)
class StrategyConfig(Settings):
    """What ranks do with steps."""

    strategy: str = option(
        "sync",
        "how the work is divided (`sixfold strategies` lists the ways); auto: the way, and the "
        "number of workers up to --workers, that `sixfold plan` predicts to be quickest of those "
        "that equal serial training bit for bit (with --deterministic false, up to rounding)",
    )
    grid: str = option(
        "",
        "model_parallel: ranks along each axis, such as batch=2,rows=2,cols=1,cout=1,cin=1; their "
        "product is --workers (default: all along rows; auto: as `sixfold plan` predicts); behind "
        "it ;LAYER:WAY for layers that are divided in another way, or a file that says so",
    )
    deterministic: bool = option(
        True, "add gradients in a fixed order: the same bits for any number of workers"
    )
    audit: float = option(
        0.0,
        "sync: share of the logical shards that another rank computes once more, to compare bit "
        "for bit: 0.01 finds a processor that errs silently",
        ge=0,
        le=1,
    )
    on_audit_failure: str = option(
        "stop",
        "what becomes of a rank that --audit has found wrong: the training stops, or goes on "
        "without it",
        choices=("stop", "exclude"),
    )
    machine: str | None = option(
        None, "auto: file in which measurements of this machine are kept (see `sixfold plan`)"
    )
    replan: bool = option(
        False,
        "auto: compare steps with what was predicted while training; where they differ, say why, "
        "and go on with another number of ranks if that is quicker by what is known then",
    )
    servers: int = option(
        1, "param_server: processes that own the weights, each a slice of them", ge=1, le=512
    )
    staleness: int | None = option(
        None,
        "param_server: most updates between a pull of weights and the push of the gradient "
        "(default: 4 for every worker)",
        ge=0,
    )
    merge_every: int = option(
        100,
        "hogwild: rounds between two meetings of all workers, where groups of them are merged",
        ge=1,
    )

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """Why a strategy that only the run names is not used: its code may be a stranger's."""
        if "strategy" not in taken or ":" not in self.strategy:
            return []
        return _module_problems(self.strategy, file, "strategy")


def _module_problems(name: str, file: Path, what: str) -> list[str]:
    from sixfold.models.origin import check_module

    try:
        check_module(name, file, what)
    except UserError as error:
        return list(error.problems)
    return []


@dataclass(frozen=True, kw_only=True)
class LocalSgdConfig(Settings):
    """How workers that train apart become one again (--strategy local_sgd)."""

    local_steps: int = option(16, "steps that each worker makes by itself between two merges", ge=1)
    aggregation: str = option(
        "mean",
        "how weights are merged",
        choices=("mean", "max_delta", "map_delta", "best", "genetic", "nesterov"),
    )
    align: bool = option(
        False, "match feature maps by permutation before a merge, and report how many had moved"
    )
    groups: int = option(
        1, "groups of workers; each merges by itself, all become one at the end", ge=1
    )
    swap_every: int | None = option(
        None, "merges after which each group hands one member on to the next group", ge=1
    )
    post_local: float = option(
        0.0, "epochs of synchronous training (as `sync`) at the beginning", ge=0
    )
    compare_serial: bool = option(
        False, "train serially over the same images too, and report its deltas beside the workers'"
    )
    outer_lr: float = option(0.7, "learning rate of the outer optimizer (nesterov)", gt=0)
    outer_momentum: float = option(0.9, "momentum of the outer optimizer (nesterov)", ge=0, lt=1)
    population: int = option(16, "networks in each generation (genetic)", ge=2)
    generations: int = option(
        4, "generations that follow the workers' own networks (genetic)", ge=0
    )
    elite: int = option(2, "fittest networks that go on unchanged (genetic)", ge=1)
    mutation_rate: float = option(
        0.05, "probability that a feature map is changed (genetic)", ge=0, le=1
    )
    mutation_scale: float = option(
        0.02, "size of that change, relative to the map's weights (genetic)", ge=0
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Everything that `sixfold train` takes."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    selection: SelectionConfig = SelectionConfig()
    compute: ComputeConfig = ComputeConfig()
    initialization: InitializationConfig = InitializationConfig()
    strategy: StrategyConfig = StrategyConfig()
    local_sgd: LocalSgdConfig = LocalSgdConfig()
    engine: EngineConfig = EngineConfig()
    tracking: TrackingConfig = TrackingConfig()
    run: RunConfig = RunConfig()

    def cross_problems(self) -> list[str]:
        """What does not go together."""
        from sixfold.training.validate import cross_problems

        return cross_problems(self)


def training_with(config: Any, **sections: Any) -> TrainConfig:
    """The training of a command that shares sections of settings with it, but for `sections`."""
    names = (field.name for field in dataclasses.fields(TrainConfig))
    return TrainConfig(**{n: getattr(config, n) for n in names if hasattr(config, n)} | sections)


def configure(**settings: Any) -> TrainConfig:
    """Settings of a training from plain names, as the command line has them.

    With ``resume=True`` and ``out`` what is not given is taken from the run. A `UserError` tells
    every unknown name and every value that cannot be.

    >>> configure(model="slide", batch_size=100, workers=2).training.batch_size
    100
    """
    config = build_or_tell_all(TrainConfig, settings)
    raise_problems(config.problems())
    return config


AUTO = "auto"  # where the planner chooses


def is_automatic(config: TrainConfig) -> bool:
    """Whether the planner chooses strategy or grid."""
    return AUTO in (config.strategy.strategy, config.strategy.grid)
