"""What the rest of Sixfold knows of `param_server`."""

from sixfold.core.lazy import lazily
from sixfold.training.config import TrainConfig
from sixfold.training.strategies.spec import APPROXIMATE, StrategySpec


def _problems(config: TrainConfig) -> list[str]:
    if not config.run.save_at_steps:
        return []
    return ["--save-at-steps: not with --strategy param_server, which has no weights of a step"]


SPEC = StrategySpec(
    name="param_server",
    # Ranks of a run whose steps are made: they evaluate the last checkpoint and write it.
    build=lazily("sixfold.training.strategies.sync.strategy:build_sync"),
    equality=APPROXIMATE,
    what="asynchronous: workers pull weights from servers and push gradients, nobody waits",
    guarantee="bounded staleness; every step is applied exactly once; the bits vary",
    sends="P + G + 2 Q to and from the servers (G gradient, Q float buffers), for each batch",
    use="workers of unequal speed, or that come and go",
    lost_rank="the others go on; a worker loses a gradient, a server about a second of updates",
    options={"strategy": ("servers", "staleness")},
    problems=_problems,
    repeatable=False,
    launch=lazily("sixfold.training.strategies.param_server.run:train_with_servers"),
)
