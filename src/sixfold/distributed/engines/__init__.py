"""Where functions run: `inline`, `local` or `spark`. They know nothing of training."""

from collections.abc import Callable, Mapping, Sequence

from sixfold.core.cpu_isa import NATIVE
from sixfold.core.errors import UserError
from sixfold.distributed.engines.engine import Engine, GroupResult, RankFunction

__all__ = ["NAMES", "Engine", "GroupResult", "RankFunction", "open_engine"]

NAMES = ("inline", "local", "spark")


def open_engine(
    name: str,
    *,
    master: str | None = None,
    spark_conf: Sequence[str] = (),
    ship: Sequence[str] = (),
    read: Callable[[], Mapping[str, str | None]] = dict,
    ranks: int = 1,
    preload: Sequence[str] = ("torch",),
    cpu_isa: str = NATIVE,
    tls: str = "auto",
) -> Engine:
    """An engine by its name, to be closed after use; a `UserError` if it cannot be used here.

    `preload` names modules that ranks of `local` need. The others are for `spark`: `ship` are the
    user's own .py files that must travel, `read` tells the variables of the environment that they
    read, `ranks` how many run at the same time, if that is known.
    With `cpu_isa` libraries compute with that instruction set (`sixfold.core.cpu_isa`). `tls`
    is `--tls`.

    >>> open_engine("locl")
    Traceback (most recent call last):
    sixfold.core.errors.UserError: unknown engine 'locl': choose inline, local or spark
    """
    if name == "inline":
        from sixfold.distributed.engines.inline import InlineEngine

        return InlineEngine(cpu_isa)
    if name == "local":
        from sixfold.distributed.engines.local import LocalEngine
        from sixfold.distributed.engines.spare_servers import SPARE_SERVERS

        engine = LocalEngine(preload=preload, cpu_isa=cpu_isa, spares=SPARE_SERVERS)
        engine.tls = tls == "true"
        engine.warm_up()  # its imports and the launcher's go on side by side
        return engine
    if name == "spark":
        try:
            from sixfold.distributed.engines.spark import SparkEngine
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] not in ("pyspark", "py4j"):
                raise
            raise UserError(
                "the spark engine needs pyspark: pip install 'sixfold[spark]'"
            ) from None
        return SparkEngine(
            master=master,
            spark_conf=spark_conf,
            ship=ship,
            read=read,
            ranks=ranks,
            cpu_isa=cpu_isa,
            tls=tls,
        )
    raise UserError(f"unknown engine {name!r}: choose inline, local or spark")
