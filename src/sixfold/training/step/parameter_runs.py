"""Settings of single parameters: learning rates and weight decays by pattern.

The flat vector of weights (`sixfold.training.step.flat`) falls into *runs*, stretches whose
parameters have equal settings; a rule is applied to each by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import nn

from sixfold.core.errors import raise_problems
from sixfold.training.config import OptimizerConfig
from sixfold.training.step.groups import parse_group

if TYPE_CHECKING:
    from sixfold.training.step.flat import FlatState


@dataclass(frozen=True, kw_only=True)
class Run:
    """A stretch of the flat weights with one setting."""

    start: int
    stop: int
    lr_factor: float
    weight_decay: float


def has_groups(config: OptimizerConfig) -> bool:
    """Whether parameters differ in their settings."""
    return bool(config.lr_group or config.weight_decay_group or config.no_decay)


def group_settings(config: OptimizerConfig, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Factor of the learning rate and weight decay of every trainable parameter, by name.

    `--no-decay` comes first, then the patterns in their order: of several that match, the last
    decides. A pattern matches names of parameters, and of modules for all that is in them.

    Raises:
        UserError: with every pattern that matches nothing.
    """
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    spared = _spared(config.no_decay, model)
    factors = dict.fromkeys(names, 1.0)
    decays = {name: 0.0 if name in spared else config.weight_decay for name in names}
    found = []
    for flag, groups, values in (
        ("--lr-group", config.lr_group, factors),
        ("--weight-decay-group", config.weight_decay_group, decays),
    ):
        for group in groups:
            pattern, value = parse_group(flag, group)
            matching = [name for name in names if matches(name, pattern)]
            if not matching:
                found.append(unmatched(flag, group, pattern, names))
            values.update(dict.fromkeys(matching, value))
    raise_problems(found)
    return {name: (factors[name], decays[name]) for name in names}


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern (`*`, `?`, `[...]`) means a parameter, or a module that it is in.

    >>> matches("layer1.conv.weight", "layer1"), matches("layer1.conv.weight", "*.weight")
    (True, True)
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")


def unmatched(flag: str, group: str, pattern: str, names: Sequence[str]) -> str:
    """That a pattern of an option matches nothing, with names that are near."""
    modules = {name.rpartition(".")[0] for name in names} - {""}
    known = [*names, *sorted(modules), *sorted({name.partition(".")[0] for name in modules})]
    near = get_close_matches(pattern.removesuffix(".*").strip("*."), known, n=3, cutoff=0.5)
    hint = f": did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    few = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"{flag} {group}: matches no trainable parameter{hint} (there are {few})"


def _spared(words: str, model: nn.Module) -> set[str]:
    """Names of the parameters that `--no-decay` spares."""
    kinds = [word.strip() for word in words.split(",")] if words else []
    found = set()
    for prefix, module in model.named_modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False):
            if ("norms" in kinds and is_norm) or ("biases" in kinds and name == "bias"):
                found.add(f"{prefix}.{name}" if prefix else name)
    return found


def parameter_runs(
    config: OptimizerConfig, state: FlatState, model: nn.Module | None = None
) -> tuple[Run, ...]:
    """The runs of a network's flat weights.

    Args:
        config: the settings.
        state: the network's, or a part's of it.
        model: the whole network; that of `state` if absent.

    Raises:
        UserError: with every pattern that matches nothing.
    """
    whole = (
        Run(start=0, stop=len(state.parameters), lr_factor=1.0, weight_decay=config.weight_decay),
    )
    if not has_groups(config):
        return whole
    settings = group_settings(config, state.model if model is None else model)
    return joined(state.places, settings, len(state.parameters))


def joined(
    places: Sequence[tuple[str, int]], settings: Mapping[str, tuple[float, float]], length: int
) -> tuple[Run, ...]:
    """Runs of neighbouring parameters with equal settings.

    Args:
        places: name and first element of every parameter, in order.
        settings: of every parameter.
        length: of the flat vector.

    >>> places = [("a", 0), ("b", 16), ("c", 32)]
    >>> [run.stop for run in joined(places, {"a": (1, 0), "b": (1, 0), "c": (2, 0)}, 48)]
    [32, 48]
    """
    runs: list[Run] = []
    stops = [start for _, start in places[1:]] + [length]
    for (name, start), stop in zip(places, stops, strict=True):
        factor, decay = settings[name]
        if runs and (runs[-1].lr_factor, runs[-1].weight_decay) == (factor, decay):
            start = runs.pop().start
        runs.append(Run(start=start, stop=stop, lr_factor=factor, weight_decay=decay))
    return tuple(runs)


def runs_within(runs: Sequence[Run], start: int, stop: int) -> tuple[Run, ...]:
    """The runs of a slice of the weights, counted from its beginning."""
    return tuple(
        Run(
            start=max(run.start, start) - start,
            stop=min(run.stop, stop) - start,
            lr_factor=run.lr_factor,
            weight_decay=run.weight_decay,
        )
        for run in runs
        if max(run.start, start) < min(run.stop, stop)
    )
