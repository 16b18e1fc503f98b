"""Checks of settings of a training against each other; fields declare their own bounds."""

import dataclasses

from sixfold.core.cpu_isa import INSTRUCTION_SETS, lacking
from sixfold.distributed.logical_shards import is_power_of_two
from sixfold.training.config import AUTO, OptimizerConfig, TrainConfig, is_automatic
from sixfold.training.step.groups import group_problems
from sixfold.training.step.schedule_kinds import schedule_problems
from sixfold.training.strategies.registry import strategy_problems


def cross_problems(config: TrainConfig) -> list[str]:
    """What does not go together, and texts that have a grammar; one line each."""
    found = [
        *_training_problems(config),
        *_compute_problems(config),
        *schedule_problems(config.optimizer),
        *optimizer_problems(config.optimizer),
        *_rule_problems(config),
        *_selection_problems(config),
        *_beginning_problems(config),
        *_freeze_problems(config),
        *strategy_problems(config),
    ]
    if config.data.test_split == 0 and config.local_sgd.compare_serial:
        found.append("--compare-serial: compares on test images; not with --test-split 0")
    if config.data.shuffle_files and config.strategy.strategy not in ("sync", "model_parallel"):
        found.append(
            f"--shuffle-files {config.data.shuffle_files}: only for --strategy sync and "
            f"model_parallel, not {config.strategy.strategy}"
        )
    if not is_automatic(config) and config.strategy.machine is not None:
        found.append("--machine: only for --strategy auto and --grid auto")
    if not is_automatic(config) and config.strategy.replan:
        found.append("--replan: only for --strategy auto and --grid auto, which plan")
    return found


def _training_problems(config: TrainConfig) -> list[str]:
    training, found = config.training, []
    if training.epochs is not None and training.steps is not None:
        found.append("--epochs and --steps exclude each other: give one")
    shards = training.shards
    if shards is not None and shards > 0 and not is_power_of_two(shards):
        found.append(f"--shards {shards}: must be a power of two")
    elif shards is not None and shards > max(training.batch_size, 1):
        found.append(
            f"--shards {shards}: a batch of {training.batch_size} has no {shards} non-empty "
            "shards; use fewer shards or a larger --batch-size"
        )
    return found


def _compute_problems(config: TrainConfig) -> list[str]:
    compute, found = config.compute, cpu_isa_problems(config)
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


def cpu_isa_problems(config: TrainConfig) -> list[str]:
    """What this host's processor has not got, if ranks run on it."""
    name = config.compute.cpu_isa
    if name not in INSTRUCTION_SETS or config.engine.engine == "spark":
        return []
    return [why] if (why := lacking(name)) else []


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


def optimizer_problems(config: OptimizerConfig) -> list[str]:
    """What is wrong with an update rule by itself, one line each."""
    from sixfold.training.step.rules import rule_problems

    found = rule_problems(config.optimizer, config.optimizer_args)
    if config.nesterov and config.optimizer != "sgd":
        found.append(f"--nesterov: only for --optimizer sgd, not {config.optimizer}")
    elif config.nesterov and not config.momentum:
        found.append("--nesterov: needs a --momentum above 0")
    return found + group_problems(config)


def _selection_problems(config: TrainConfig) -> list[str]:
    from sixfold.training.selection import selection_problems

    return selection_problems(config)


def _rule_problems(config: TrainConfig) -> list[str]:
    """What an update rule does not go with."""
    from sixfold.training.step.rules import rule_of

    name, found = config.optimizer.optimizer, _average_problems(config)
    initialization, strategy = config.initialization, config.strategy.strategy
    if not rule_of(name).whole_tensors:
        return found
    if strategy == "param_server" or _may_divide(config):
        found.append(
            f"--optimizer {name}: not with --strategy {strategy}, whose ranks hold parts of "
            "tensors; give another --optimizer, or --strategy sync"
        )
    for flag in ("mask", "shared"):
        if getattr(initialization, flag) is not None:
            found.append(
                f"--optimizer {name}: not with --{flag}, which needs an update that works element "
                "by element; give sgd, adam, or one of torch.optim"
            )
    return found


def _average_problems(config: TrainConfig) -> list[str]:
    """What `--ema` does not go with."""
    flag, local, found = f"--ema {config.optimizer.ema}", config.local_sgd, []
    if config.optimizer.ema is None:
        return []
    strategy = config.strategy.strategy
    if strategy == "hogwild":
        found.append(f"{flag}: not with --strategy hogwild, whose weights change at any time")
    if strategy == "local_sgd" and (local.aggregation != "mean" or local.groups > 1):
        found.append(f"{flag}: with --strategy local_sgd only for one group and --aggregation mean")
    if config.initialization.shared is not None:
        found.append(f"{flag}: not with --shared, whose weights are kept equal in clusters")
    return found


def _may_divide(config: TrainConfig) -> bool:
    """Whether ranks may hold parts of tensors."""
    strategy = config.strategy
    if strategy.strategy == "model_parallel" and strategy.grid != AUTO:
        from sixfold.training.strategies.model_parallel.division import read_division

        grid = read_division(strategy.grid)[0] if strategy.grid else None
        return grid is None or grid.mesh.size > 1
    return strategy.strategy == "model_parallel" or (
        is_automatic(config) and (strategy.grid == AUTO or not strategy.deterministic)
    )


def _beginning_problems(config: TrainConfig) -> list[str]:
    initialization, found = config.initialization, []
    steps = config.training.steps
    if steps is not None and 0 < steps <= initialization.start_step:
        found.append(
            f"--start-step {initialization.start_step}: --steps {steps} ends before it; "
            "--steps counts from step 0"
        )
    others = dataclasses.replace(initialization, weights=None)
    if others != type(initialization)() and config.strategy.strategy != "sync":
        found.append(
            "--mask, --shared and --start-step: only with --strategy sync, not "
            f"{config.strategy.strategy}"
        )
    return found


def _freeze_problems(config: TrainConfig) -> list[str]:
    """What `--freeze` does not go with."""
    flag, found = f"--freeze {config.optimizer.freeze}", []
    if not config.optimizer.freeze:
        return []
    for name in ("mask", "shared"):
        if getattr(config.initialization, name) is not None:
            found.append(f"{flag}: not with --{name}, which is of all weights; leave one of both")
    if config.optimizer.unfreeze and config.strategy.strategy not in ("sync", "model_parallel"):
        found.append(
            f"--unfreeze {config.optimizer.unfreeze[0]}: only with --strategy sync and "
            f"model_parallel, not {config.strategy.strategy}"
        )
    if config.local_sgd.align:
        found.append(f"{flag}: not with --align, which moves feature maps of all layers")
    return found
