"""Executors without an installation of Sixfold compute with the C kernels that were sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.spark_masters import EngineProcess

from sixfold import configure
from sixfold.distributed.process_group import Communicator
from sixfold.training.native.max_pool import is_built
from sixfold.training.run import train

pytestmark = [
    pytest.mark.spark,
    pytest.mark.skipif(not is_built(), reason="the C module was not built here"),
]


def look(comm: Communicator) -> dict[str, Any]:
    """What a rank computes with."""
    from sixfold.training.native import loading, max_pool

    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = {line.split(maxsplit=5)[-1] for line in maps if "kernels" in line}
    return {
        "rank": comm.rank,
        "parent": os.getppid(),
        "package": loading.__file__,
        "origin": max_pool.found.origin,
        "version": max_pool.kernels.version,
        "mapped": sorted(mapped),
    }


@pytest.mark.full
def test_ranks_in_executors_have_the_kernels_that_were_sent(spark_bare: EngineProcess) -> None:
    ranks = [spark_bare.run_ranks(look, 2).results for _ in range(2)]
    for rank in ranks[0] + ranks[1]:  # the second time in Python workers that were used before
        assert ".zip/" in rank["package"]
        assert rank["origin"] == "shipped"
        assert rank["version"] >= 3
        assert rank["mapped"] == ["/memfd:sixfold-kernels (deleted)"]  # in no file system
    assert len({rank["parent"] for rank in ranks[0]}) == 2  # two executors


@pytest.mark.full
def test_an_installation_on_the_executor_goes_first(spark_cluster: EngineProcess) -> None:
    for rank in spark_cluster.run_ranks(look, 2).results:
        assert ".zip/" in rank["package"]
        assert rank["origin"] == "installed"


@pytest.mark.full
def test_the_record_tells_of_the_kernels_and_the_hash_is_that_of_one_worker(
    spark_bare: EngineProcess, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "data": "synthetic:160x3x16x16",
        "model": "resnet20",
        "model_args": "depth=8",
        "batch_size": 80,
        "steps": 3,
    }
    serial = train(configure(**settings, engine="inline", workers=1, out=str(tmp_path / "one")))
    found = train(
        configure(**settings, engine="spark", workers=2, out=str(tmp_path / "two")),
        engine=spark_bare,
    )
    assert serial["native_kernels"] == ["installed"]
    assert found["native_kernels"] == ["shipped", "shipped"]
    assert found["weights_sha256"] == serial["weights_sha256"]
