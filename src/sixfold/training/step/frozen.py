"""Parameters that keep their values (`--freeze`), and norms that keep their statistics with them.

A frozen parameter is no part of the flat vector (`sixfold.training.step.flat`): it has no
gradient, no decay and no state of the update rule, so its bits stay. A norm of which all
parameters are frozen computes with its running statistics, in training as in evaluation, and they
stay, too.

What `--unfreeze` names is trained from an epoch on: there the vector is made anew from a checkpoint
(`sixfold.training.worker`). The state of the update rule is zero for what joins it, as torch's is
for a new group of parameters; but the number of updates, by which Adam corrects its moments, is
that of the training.
"""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from sixfold.core.errors import UserError, raise_problems
from sixfold.training.config import OptimizerConfig
from sixfold.training.step.groups import frozen_patterns, unfreezing
from sixfold.training.step.parameter_runs import matches, unmatched

_MARK = "keeps_statistics"


def freeze(network: nn.Module, config: OptimizerConfig) -> nn.Module:
    """Freeze what the settings name, in place; the same network.

    Raises:
        UserError: with every pattern that matches nothing, or if nothing is left to be trained.
    """
    patterns = frozen_patterns(config)
    if not patterns:
        return network
    named = list(network.named_parameters(remove_duplicate=False))
    names = [name for name, parameter in named if parameter.requires_grad]
    found = [
        unmatched("--freeze", pattern, pattern, names)
        for pattern in patterns
        if not any(matches(name, pattern) for name in names)
    ]
    later = unfreezing(config)
    found += [
        f"--unfreeze {pattern}: matches no parameter of --freeze {config.freeze}"
        for pattern, _ in later
        if not any(matches(n, pattern) and any(matches(n, p) for p in patterns) for n in names)
    ]
    raise_problems(found)

    def is_meant(name: str) -> bool:
        if any(matches(name, pattern) for pattern, epoch in later if epoch == 0):
            return False
        return any(matches(name, pattern) for pattern in patterns)

    for name, parameter in named:
        if is_meant(name):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"--freeze {config.freeze}: leaves no parameter to be trained")
    for prefix, module in network.named_modules():
        if not isinstance(module, _NormBase):
            continue
        own = dict(module.named_parameters(recurse=False))
        inside = [f"{prefix}.{name}" if prefix else name for name in (*own, "running_mean")]
        if any(map(is_meant, inside)) and not any(p.requires_grad for p in own.values()):
            keep_statistics(module)
    return network


def keep_statistics(module: nn.Module) -> None:
    """Let a norm compute with its running statistics, whatever the network's mode."""
    setattr(module, _MARK, True)


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a norm, or a rank's part of one, is such."""
    return getattr(module, _MARK, False) is True


def still_norms(network: nn.Module) -> Iterator[nn.Module]:
    """The norms of a network that keep their statistics."""
    return filter(keeps_statistics, network.modules())


def frozen_note(network: nn.Module, config: OptimizerConfig) -> str:
    """What is frozen, in words."""
    sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
    whole, frozen = sum(n for n, _ in sizes), sum(n for n, trained in sizes if not trained)
    norms = sum(1 for _ in still_norms(network))
    kept = f"; {norms} norms keep their statistics and compute with them" if norms else ""
    later = f", at first (--unfreeze {', '.join(config.unfreeze)})" if config.unfreeze else ""
    of = f"{frozen:,} of {whole:,}"
    return f"--freeze {config.freeze}: {of} parameters keep their values{later}{kept}"
