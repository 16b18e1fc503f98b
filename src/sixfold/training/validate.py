"""Checks of the settings that need neither data nor network: all problems at once."""

from __future__ import annotations

import math

from sixfold.core.checks import choice_problems, seed_problems
from sixfold.core.errors import UserError
from sixfold.distributed.config import engine_problems
from sixfold.distributed.logical_shards import LARGEST_COUNT, is_power_of_two
from sixfold.training.config import AUTO, TrainConfig, is_automatic
from sixfold.training.strategies.registry import strategy_problems

MOST = 10**12
"""Epochs or steps: beyond any training, and within the numbers that count them."""


def problems(config: TrainConfig) -> list[str]:
    """Everything that is wrong with the settings by themselves, one line each."""
    return [
        *choice_problems(config),
        *_training_problems(config),
        *_compute_problems(config),
        *_optimizer_problems(config),
        *_beginning_problems(config),
        *strategy_problems(config),
        *_run_problems(config),
        *engine_problems(config.engine),
    ]


def _training_problems(config: TrainConfig) -> list[str]:
    training, found = config.training, []
    if training.batch_size < 1:
        found.append(f"--batch-size {training.batch_size}: must be at least 1")
    if training.epochs is not None and training.steps is not None:
        found.append("--epochs and --steps exclude each other: give one")
    if training.epochs is not None and not 0 < training.epochs <= MOST:
        found.append(f"--epochs {training.epochs}: must be above 0, and at most {MOST:.0e}")
    if training.steps is not None and not 1 <= training.steps <= MOST:
        found.append(f"--steps {training.steps}: must be from 1 to {MOST:.0e}")
    found += seed_problems(training.seed)
    if not training.evaluate_every >= 0:
        found.append(f"--evaluate-every {training.evaluate_every}: must not be negative")
    shards = training.shards
    if shards is not None and not (is_power_of_two(shards) and shards <= LARGEST_COUNT):
        found.append(f"--shards {shards}: must be a power of two from 1 to {LARGEST_COUNT}")
    elif shards is not None and shards > max(training.batch_size, 1):
        found.append(
            f"--shards {shards}: a batch of {training.batch_size} has no {shards} non-empty "
            "shards; use fewer shards or a larger --batch-size"
        )
    return found


def _compute_problems(config: TrainConfig) -> list[str]:
    compute, found = config.compute, []
    word = compute.micro_batch
    is_given = word not in ("auto", "off")
    if is_given and not (word.isascii() and word.isdigit() and int(word) > 0):
        found.append(f"--micro-batch {word}: expected auto, off, or a number of images")
    if compute.tuning is not None and word != "auto":
        found.append("--micro-batch and --tuning exclude each other: give one")
    flag = "--tuning" if compute.tuning is not None else f"--micro-batch {word}"
    strategy = config.strategy
    may_divide = strategy.strategy == "model_parallel" or (
        is_automatic(config) and (strategy.grid == AUTO or not strategy.deterministic)
    )
    if (compute.tuning is not None or is_given) and may_divide:
        found.append(f"{flag}: not with --strategy model_parallel, which computes shards whole")
    if compute.device == "cpu":
        return [*found, "--tf32: only for --device cuda"] if compute.tf32 else found
    return found + _gpu_problems(config, is_cut=is_given or compute.tuning is not None, flag=flag)


def _gpu_problems(config: TrainConfig, *, is_cut: bool, flag: str) -> list[str]:
    """What `--device cuda` does not go with."""
    where, found = f"--device {config.compute.device}", []
    if config.strategy.strategy != "sync":
        found.append(f"{where}: only with --strategy sync, not {config.strategy.strategy}")
    if config.engine.engine not in ("local", "inline"):
        found.append(f"{where}: only with --engine local or inline, not {config.engine.engine}")
    if config.training.batch_norm == "sync":
        found.append(f"{where}: not with --batch-norm sync; give --batch-norm shard")
    if is_cut:
        found.append(f"{where}: not with {flag}; a GPU computes shards whole")
    return found


def _optimizer_problems(config: TrainConfig) -> list[str]:
    from sixfold.training.step.schedule import parse_schedule

    optimizer, found = config.optimizer, []
    if not (optimizer.lr >= 0 and math.isfinite(optimizer.lr)):
        found.append(f"--lr {optimizer.lr}: must be a number of at least 0")
    if not 0 <= optimizer.momentum < 1:
        found.append(f"--momentum {optimizer.momentum}: must lie in [0, 1)")
    if not (optimizer.weight_decay >= 0 and math.isfinite(optimizer.weight_decay)):
        found.append(f"--weight-decay {optimizer.weight_decay}: must be a number of at least 0")
    if not (optimizer.warmup >= 0 and math.isfinite(optimizer.warmup)):
        found.append(f"--warmup {optimizer.warmup}: must be a number of at least 0")
    try:
        parse_schedule(optimizer)
    except UserError as error:
        found += error.problems
    return found


def _beginning_problems(config: TrainConfig) -> list[str]:
    initialization, found = config.initialization, []
    if initialization.start_step < 0:
        found.append(f"--start-step {initialization.start_step}: must not be negative")
    steps = config.training.steps
    if steps is not None and 0 < steps <= initialization.start_step:
        found.append(
            f"--start-step {initialization.start_step}: --steps {steps} ends before it; "
            "--steps counts from step 0"
        )
    if initialization != type(initialization)() and config.strategy.strategy != "sync":
        found.append(
            "--weights, --mask, --shared and --start-step: only with --strategy sync, not "
            f"{config.strategy.strategy}"
        )
    return found


def _run_problems(config: TrainConfig) -> list[str]:
    run, found = config.run, []
    if not is_automatic(config) and config.strategy.machine is not None:
        found.append("--machine: only for --strategy auto and --grid auto")
    if run.checkpoint_every is not None and run.checkpoint_every < 1:
        found.append(f"--checkpoint-every {run.checkpoint_every}: must be at least 1")
    if run.keep_checkpoints < 1:
        found.append(f"--keep-checkpoints {run.keep_checkpoints}: must be at least 1")
    for step in run.save_at_steps:
        if not step.isdecimal():
            found.append(f"--save-at-steps {step}: must be a whole number of steps, from 0")
    if run.resume and run.overwrite:
        found.append("--resume and --overwrite exclude each other: give one")
    return found
