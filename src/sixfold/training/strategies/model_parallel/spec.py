"""What the rest of Sixfold knows of `model_parallel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sixfold.training.config import AUTO, TrainConfig
from sixfold.training.strategies.spec import REPLACE, ROUNDING, StrategySpec

if TYPE_CHECKING:
    from sixfold.data import DataSet
    from sixfold.distributed.process_group import Communicator
    from sixfold.training.strategies.strategy import Strategy


def _build(comm: Communicator, config: TrainConfig, data: DataSet) -> Strategy:
    from sixfold.training.strategies.model_parallel.strategy import build_model_parallel

    return build_model_parallel(comm, config, data)


def _problems(config: TrainConfig) -> list[str]:
    from sixfold.training.strategies.model_parallel.division import read_division

    return [] if config.strategy.grid == AUTO else read_division(config.strategy.grid)[1]


def _fit_problems(config: TrainConfig, workers: int, data: DataSet) -> list[str]:
    from sixfold.training.strategies.model_parallel.strategy import division_problems

    return division_problems(config, workers, shape=data.shape, classes=data.outputs)


SPEC = StrategySpec(
    name="model_parallel",
    build=_build,
    equality=ROUNDING,
    what="rows, columns and channels of the maps are divided, in any grid with the batch, and "
    "each layer in its own way where that is asked for",
    guarantee="equal to serial training up to rounding (1e-10 in float64), the same every time",
    sends="rows, cols: 2 B C W h a layer with a halo of h rows, and 2 Pc (m-1)/m, Pc the size "
    "of convolutions, m = rows x cols; cout: 2 B C H W (cout-1)/cout a convolution behind the "
    "first; linear layers: B K (T-1) at the end of the network of T ranks, or 2 B K (T-1)/T",
    use="small batches of large images, and networks too large for one rank",
    lost_rank="a replacement gets its part from the rank that has a copy; the others wait for it",
    on_loss=REPLACE,
    options={"strategy": ("grid",)},
    problems=_problems,
    fit_problems=_fit_problems,
)
