"""What the estimator needs of a Spark session, classic or Connect: an engine, our code there."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sixfold.distributed.engines import Engine
    from sixfold.distributed.engines.spark_session import Session


def is_connect(session: SparkSession) -> bool:
    """Whether the session speaks to a Spark Connect server."""
    return type(session).__module__.startswith("pyspark.sql.connect")


@contextmanager
def engine_of(session: SparkSession, names: tuple[str, ...] = ()) -> Iterator[Engine]:
    """The engine whose ranks run on the session's executors; the session is left open.

    The source of the objects that `names` are travels there.
    """
    from sixfold.distributed.engines.spark import SparkEngine
    from sixfold.models.importing import source_files
    from sixfold.models.project import variables_read_by

    ship = [source for name in names for source in source_files(name)]
    read = partial(variables_read_by, names)
    engine = SparkEngine(session=_session(session), ship=ship, read=read)
    with contextlib.closing(engine):
        yield engine


def send_code(session: SparkSession, *names: str) -> tuple[str, ...]:
    """Let the session's Python workers import this package, wherever they run.

    Args:
        session: classic or Connect.
        names: of the user's own objects, such as `package.module:Net`, whose source travels too.

    Returns:
        The names of the user's zip files there.
    """
    from sixfold.distributed.engines.spark_package import ship
    from sixfold.models.importing import source_files

    sources = dict.fromkeys(source for name in names for source in source_files(name))
    return ship(_session(session).carrier, tuple(sources))


def _session(session: SparkSession) -> Session:
    if is_connect(session):
        from sixfold.distributed.engines.spark_connect import ConnectSession

        return ConnectSession(session)
    from sixfold.distributed.engines.spark_session import open_session

    return open_session()


@cache
def scratch() -> Path:
    """A folder of this process, gone with it."""
    folder = tempfile.mkdtemp(prefix="sixfold-spark-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def master_of(session: SparkSession) -> str:
    """The URL of the session's master, as far as it tells."""
    try:
        return str(session.conf.get("spark.master"))
    except Exception:
        return ""
