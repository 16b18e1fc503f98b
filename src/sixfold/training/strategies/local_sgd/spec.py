"""What the rest of Sixfold knows of `local_sgd`."""

import dataclasses

from sixfold.core.lazy import lazily
from sixfold.training.config import LocalSgdConfig
from sixfold.training.strategies.local_sgd.checks import local_sgd_problems
from sixfold.training.strategies.spec import APPROXIMATE, REPLACE, StrategySpec

SPEC = StrategySpec(
    name="local_sgd",
    build=lazily("sixfold.training.strategies.local_sgd.strategy:build_local_sgd"),
    equality=APPROXIMATE,
    what="workers train apart on images of their own, and merge their weights every H steps",
    guarantee="approximate: the result depends on the number of workers, and on nothing else",
    sends="2 P (1+s) (n-1)/n / H, s state vectors of the optimizer (1 with momentum)",
    use="slow networks, since it sends H times less; or to study how networks can be merged",
    lost_rank="all go back to the last merge, and a replacement gets it from its group",
    on_loss=REPLACE,
    options={"local_sgd": tuple(field.name for field in dataclasses.fields(LocalSgdConfig))},
    problems=local_sgd_problems,
)
