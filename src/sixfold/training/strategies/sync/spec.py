"""What the rest of Sixfold knows of `sync`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sixfold.core.lazy import lazily
from sixfold.training.config import TrainConfig
from sixfold.training.strategies.spec import BIT_FOR_BIT, CONTINUE, StrategySpec

if TYPE_CHECKING:
    from sixfold.data import DataSet


def _problems(config: TrainConfig) -> list[str]:
    strategy = config.strategy
    if strategy.on_audit_failure != "stop" and not strategy.audit:
        return [f"--on-audit-failure {strategy.on_audit_failure}: only with --audit"]
    if not strategy.audit or strategy.deterministic:
        return []
    return [
        f"--audit {strategy.audit:g}: not with --deterministic false, which allows ranks to "
        "compute other bits"
    ]


def _fit_problems(config: TrainConfig, workers: int, _: DataSet) -> list[str]:
    audit = config.strategy.audit
    if not audit or workers > 1:
        return []
    return [f"--audit {audit:g}: another rank computes again, give --workers 2 or more"]


SPEC = StrategySpec(
    name="sync",
    build=lazily("sixfold.training.strategies.sync.strategy:build_sync"),
    equality=BIT_FOR_BIT,
    what="data parallel: the batch is divided, and gradients are added at every step",
    guarantee="equal to serial training bit for bit, for any number of workers",
    sends="2 P (n-1)/n for n a power of two; others send up to 2 log2 L partial sums, not one",
    use="by default: whenever a batch is worth dividing and ranks are well connected",
    lost_rank="the others go on at once, from the same step; a replacement joins them",
    on_loss=CONTINUE,
    options={"strategy": ("audit", "on_audit_failure")},
    problems=_problems,
    fit_problems=_fit_problems,
)
