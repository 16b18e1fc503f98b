"""What the rest of Sixfold knows of `param_server`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sixfold.training.config import TrainConfig
from sixfold.training.strategies.spec import APPROXIMATE, StrategySpec

if TYPE_CHECKING:
    from sixfold.data import DataSet
    from sixfold.distributed.process_group import Communicator
    from sixfold.training.strategies.strategy import Strategy


def _build(comm: Communicator, config: TrainConfig, data: DataSet) -> Strategy:
    """Ranks of a run whose steps are made: they evaluate the last checkpoint and write it."""
    from sixfold.training.strategies.sync.strategy import build_sync

    return build_sync(comm, config, data)


def _launch(*arguments: Any) -> Any:
    from sixfold.training.strategies.param_server.run import train_with_servers

    return train_with_servers(*arguments)


def _problems(config: TrainConfig) -> list[str]:
    if not config.run.save_at_steps:
        return []
    return ["--save-at-steps: not with --strategy param_server, which has no weights of a step"]


SPEC = StrategySpec(
    name="param_server",
    build=_build,
    equality=APPROXIMATE,
    what="asynchronous: workers pull weights from servers and push gradients, nobody waits",
    guarantee="bounded staleness; every step is applied exactly once; the bits vary",
    sends="P + G + 2 Q to and from the servers (G gradient, Q float buffers), for each batch",
    use="workers of unequal speed, or that come and go",
    lost_rank="the others go on; a worker loses a gradient, a server about a second of updates",
    options={"strategy": ("servers", "staleness")},
    problems=_problems,
    repeatable=False,
    launch=_launch,
)
