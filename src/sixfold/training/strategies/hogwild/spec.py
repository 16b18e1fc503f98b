"""What the rest of Sixfold knows of `hogwild`."""

from sixfold.core.lazy import lazily
from sixfold.training.strategies.spec import APPROXIMATE, StrategySpec

SPEC = StrategySpec(
    name="hogwild",
    build=lazily("sixfold.training.strategies.hogwild.strategy:build_hogwild"),
    equality=APPROXIMATE,
    what="workers of one machine update shared weights without locks, each on its own batches",
    guarantee="approximate: gradients are some updates old, and a few updates may be lost",
    sends="nothing within a machine; at a merge of m groups 2 (P + optimizer state) (m-1)/m",
    use="many cores of one machine and batches too small to be divided",
    lost_rank="all ranks start again from the last checkpoint",
    options={"strategy": ("merge_every",)},
    repeatable=False,
)
