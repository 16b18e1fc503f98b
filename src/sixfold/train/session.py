"""What all launchers share: engines, data, versions."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from sixfold.core.config import DataConfig, EngineConfig
from sixfold.distributed.engines import open_engine
from sixfold.distributed.engines.engine import Engine

Listener = Callable[[Mapping[str, Any]], None]
"""Hears of everything that a person may want to see while the run goes on: plain data with a
``kind``: "note", "prepare", "rank" (where a rank runs), "server" (a
parameter server has started), "progress", "evaluation", "predicted"."""


@contextmanager
def open_engine_for(
    config: EngineConfig,
    model: str | None = None,
    preload: Sequence[str] = (),
    *,
    together: bool = False,
) -> Iterator[Engine]:
    """The engine that the settings name, closed at the end.

    Args:
        config: the settings.
        model: the network, whose source travels to a cluster if it is the user's own.
        preload: modules that ranks need besides, imported once for all by `local`.
        together: the workers are ranks that must run at the same time.
    """
    ship: tuple[str, ...] = ()
    if config.engine == "spark" and model is not None:
        from sixfold.models import source_file

        source = source_file(model)
        ship = (str(source),) if source else ()
    engine = open_engine(
        config.engine,
        master=config.master,
        spark_conf=config.spark_conf,
        ship=ship,
        ranks=config.workers or 1 if together else 1,
        # torch runs some layers on the meta device with the help of its compiler: every network
        # that is measured there needs it, 1.3 s and 80 MB in every rank that imports it by itself.
        preload=("sixfold.train.worker", "sixfold.predict.worker", "torch._dynamo", *preload),
    )
    with contextlib.closing(engine):
        yield engine


def restarts_of(config: EngineConfig) -> int:
    """How often a gang that lost a rank is started again: 3 times on Spark, else never."""
    if config.max_restarts is not None:
        return config.max_restarts
    return 3 if config.engine == "spark" else 0


def pool_of(engine: Engine, workers: int) -> Any:
    """The engine's pool in the form in which `sixfold.data` asks for one."""

    def pool(function: Any, items: Sequence[Any], on_done: Any) -> list[Any]:
        return engine.pool(function, items, workers=workers, on_done=on_done)

    return pool


def resolve_data(
    config: DataConfig, engine: Engine, workers: int, listen: Listener, *, labelled: bool = True
) -> DataConfig:
    """Turn data into something that ranks can map, with the engine's workers where it is long.

    Args:
        config: the data as the user gave it.
        engine: whose workers prepare them.
        workers: how many.
        listen: told how many images are prepared.
        labelled: see `sixfold.data.resolve`.

    Raises:
        UserError: with everything that is wrong with it.
    """
    from sixfold import data

    return data.resolve(
        config,
        pool=pool_of(engine, workers),
        workers=workers,
        progress=lambda done, total: listen({"kind": "prepare", "done": done, "total": total}),
        labelled=labelled,
    )


def told(left_out: Sequence[str]) -> str:
    """The first of what is left out of a set, and how many more there are."""
    more = f"; and {len(left_out) - 3} more (see bad_files in the result)"
    return "; ".join(left_out[:3]) + (more if len(left_out) > 3 else "")


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("sixfold", "torch", "numpy", "pyarrow", "pyspark"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"cores": str(os.cpu_count())}
