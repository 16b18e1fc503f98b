"""A Spark Connect server as the master that a command is given."""

from __future__ import annotations

import contextlib
import os

import pytest
from tests.spark_masters import EngineProcess

from sixfold.distributed.engines import Engine, open_engine

TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"


def _place(engine: Engine) -> tuple[str, str]:
    url: str = engine.session.master.url  # type: ignore[attr-defined]
    return url, os.environ.get(TOKEN, "")


@pytest.mark.spark
@pytest.mark.full
def test_a_connect_server_is_a_master(
    spark_connect: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, token = spark_connect.call(_place)
    monkeypatch.setenv(TOKEN, token)
    with contextlib.closing(open_engine("spark", master=url)) as engine:
        assert engine.slots() == 2
        assert engine.pool(abs, [-1, 2], workers=2) == [1, 2]
    assert spark_connect.slots() == 2  # the server, and other sessions with it, stay
