"""What the rest of Sixfold knows of `hogwild`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sixfold.training.config import TrainConfig
from sixfold.training.strategies.spec import APPROXIMATE, StrategySpec

if TYPE_CHECKING:
    from sixfold.data import DataSet
    from sixfold.distributed.process_group import Communicator
    from sixfold.training.strategies.strategy import Strategy


def _build(comm: Communicator, config: TrainConfig, data: DataSet) -> Strategy:
    from sixfold.training.strategies.hogwild.strategy import build_hogwild

    return build_hogwild(comm, config, data)


SPEC = StrategySpec(
    name="hogwild",
    build=_build,
    equality=APPROXIMATE,
    what="workers of one machine update shared weights without locks, each on its own batches",
    guarantee="approximate: gradients are some updates old, and a few updates may be lost",
    sends="nothing within a machine; at a merge of m groups 2 (P + optimizer state) (m-1)/m",
    use="many cores of one machine and batches too small to be divided",
    lost_rank="all ranks start again from the last checkpoint",
    options={"strategy": ("merge_every",)},
    repeatable=False,
)
