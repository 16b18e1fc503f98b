"""What the rest of Sixfold knows of a strategy: one `StrategySpec` each, beside its code.

A spec is plain data and functions that import their strategy when they are called, so the command
line can list and check strategies without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sixfold.training.config import TrainConfig

if TYPE_CHECKING:
    from sixfold.data import DataSet
    from sixfold.distributed.process_group import Communicator
    from sixfold.training.strategies.strategy import Strategy

BIT_FOR_BIT = "bit for bit"
ROUNDING = "up to rounding"
APPROXIMATE = "approximate"

CONTINUE, REPLACE, RESTART = "continue", "replace", "restart"
"""What the others do when a rank is lost: go on with fewer, wait for a replacement that gets the
state from one of them, or start again with all ranks from the last checkpoint."""


def _no_problems(_: TrainConfig) -> list[str]:
    return []


def _always_fits(_config: TrainConfig, _workers: int, _data: DataSet) -> list[str]:
    return []


@dataclass(frozen=True, kw_only=True)
class StrategySpec:
    """One way to divide the work."""

    name: str  # as `--strategy` takes it
    # Makes it, ready for its first step, on one rank.
    build: Callable[[Communicator, TrainConfig, DataSet], Strategy]
    # How the weights relate to serial training's: `BIT_FOR_BIT`, `ROUNDING` or `APPROXIMATE`.
    equality: str
    what: str  # how it divides the work, one line
    guarantee: str  # the same as `equality`, at more length
    sends: str  # bytes that each rank sends a step
    use: str  # when to choose it
    lost_rank: str  # what happens when a rank dies
    # Section of the settings -> those of its settings that are for this strategy alone.
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # What is wrong with the settings by themselves, one line each.
    problems: Callable[[TrainConfig], list[str]] = _no_problems
    # What is wrong once workers and data are known.
    fit_problems: Callable[[TrainConfig, int, DataSet], list[str]] = _always_fits
    repeatable: bool = True  # whether the same settings give the same bits again
    # Makes all steps in place of ranks that meet at each of them, called with (config, directory,
    # engine, workers, on_event); the last checkpoint then holds the result. None: ranks run
    # `build`'s strategy.
    launch: Callable[..., Any] | None = None
    on_loss: str = RESTART
    """`CONTINUE`, `REPLACE` or `RESTART`. With the first two the network that it trains is a
    `MovableNetwork`; with the first the number of ranks alters no bit."""


def misplaced_options(spec: StrategySpec, config: TrainConfig) -> list[str]:
    """Settings that are for a strategy alone, although another one is chosen."""
    found = []
    for section, names in spec.options.items():
        values = getattr(config, section)
        usual = type(values)()
        for name in names:
            value = getattr(values, name)
            if value == getattr(usual, name):
                continue
            text = str(value).lower() if isinstance(value, bool) else value
            found.append(f"--{name.replace('_', '-')} {text}: only for --strategy {spec.name}")
    return found
