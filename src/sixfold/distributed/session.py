"""An engine from settings."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sixfold.core.cpu_isa import NATIVE
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.engines import open_engine
from sixfold.distributed.engines.engine import Engine

PRELOAD = ("sixfold.training.worker", "sixfold.prediction.worker", "torch._dynamo")
"""What ranks need that train or predict. torch runs some layers on the meta device with the help of
its compiler: every network that is measured there needs it, 2 s and 80 MB in every rank that
imports it by itself."""


@contextmanager
def open_engine_for(
    config: EngineConfig,
    model: str | None = None,
    preload: Sequence[str] = (),
    *,
    together: bool = False,
    given: Engine | None = None,
    code: Sequence[str] = (),
    cpu_isa: str = NATIVE,
) -> Iterator[Engine]:
    """The engine that the settings name, closed at the end; or the one `given`, left open.

    The source of `model`, and of the other objects in `code`, travels to a cluster if it is the
    user's own; `preload` names modules that ranks need besides `PRELOAD`; `together` says that all
    workers run at the same time.
    """
    if given is not None:
        yield given
        return
    ship: tuple[str, ...] = ()
    own = (model, *code) if model is not None else ()
    if config.engine == "spark":
        from sixfold.models.importing import source_files

        named = [source for name in own for source in source_files(name)]
        ship = tuple(dict.fromkeys(map(str, named)))
    engine = open_engine(
        config.engine,
        master=config.master,
        spark_conf=config.spark_conf,
        ship=ship,
        read=functools.partial(_variables, own),
        ranks=config.min_workers or config.workers or 1 if together else 1,
        preload=(*PRELOAD, *preload),
        cpu_isa=cpu_isa,
        tls=config.tls,
    )
    with contextlib.closing(engine):
        yield engine


def _variables(names: Sequence[str]) -> dict[str, str | None]:
    from sixfold.models.project import variables_read_by

    return variables_read_by(names)


def restarts_of(config: EngineConfig, *, elastic_ranks: int = 0) -> int:
    """How many lost ranks are replaced, or how often a group that is not elastic starts again.

    If nothing else is asked for: 3, but on Spark, where executors come and go, 10 for each rank
    that can be replaced alone, and none for a group of this machine that would start again as a
    whole.
    """
    if config.max_restarts is not None:
        return config.max_restarts
    if config.engine == "spark":
        return 10 * elastic_ranks or 3
    return 3 if elastic_ranks else 0


def pool_of(engine: Engine, workers: int) -> Any:
    """The engine's pool in the form in which `sixfold.data` asks for one."""

    def pool(function: Any, items: Sequence[Any], on_done: Any) -> list[Any]:
        return engine.pool(function, items, workers=workers, on_done=on_done)

    return pool
