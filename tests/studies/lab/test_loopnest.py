"""Every design gives the direct loop nest's outputs, for any sizes, and costs what it should."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from tests.spark_masters import EngineProcess

from sixfold.studies.convolution.geometry import Geometry

pytestmark = [pytest.mark.spark, pytest.mark.full]

DESIGNS = ("1", "2", "2b", "3", "batch", "batch-channels", "rows-columns")

GEOMETRIES = {
    "as the slide network": Geometry.of((3, 3, 8, 8), (4, 3, 5, 5), padding=2),
    "uneven": Geometry.of(
        (5, 2, 11, 7), (5, 2, 3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)
    ),
    "strided beyond the kernel": Geometry.of((2, 1, 10, 9), (3, 1, 2, 2), stride=(3, 4)),
    "one pixel": Geometry.of((1, 1, 1, 1), (1, 1, 1, 1)),
}


def collect(runs: Iterator[Any]) -> list[Any]:
    """Every block of outputs."""
    return [block for outputs in runs for block in outputs.collect()]


def run_designs(engine: Any, geometry: Geometry, sizes: dict[str, Any]) -> dict[str, Any]:
    """Over there: for every design its verdict, cost and replication."""
    from sixfold.studies.convolution import direct
    from sixfold.studies.lab.cluster import Cluster
    from sixfold.studies.lab.loopnest.check import assemble, compare
    from sixfold.studies.lab.loopnest.designs import DESIGNS, Meters, Sizes
    from sixfold.studies.lab.problem import Problem

    cluster = Cluster(engine, 4)
    problem = Problem(geometry=geometry, block=2, dtype="float64")
    wanted = direct.forward(problem.all_images(), problem.weights(), geometry)
    found = {}
    for name, entry in DESIGNS.items():
        meters = Meters.of(cluster.context)
        runs = entry.run(cluster, problem, Sizes(**sizes), meters)
        blocks, cost = cluster.measured(name, partial(collect, runs))
        outputs, complete = assemble(problem, blocks)
        verdict = compare(problem, outputs, wanted, complete=complete)
        found[name] = {
            "right": verdict.right,
            "error": verdict.error,
            "jobs": cost.jobs,
            "tasks": cost.tasks,
            "shuffled": cost.shuffle_bytes,
            "broadcast": cost.broadcast_bytes,
            "replication": meters.sent.value / problem.pixels,
        }
    return found


@pytest.mark.full
@pytest.mark.parametrize("name", GEOMETRIES)
def test_designs_equal_the_direct_loop_nest(spark_local: EngineProcess, name: str) -> None:
    sizes = {"iterate": (4, 0, 2, 0), "maps": 2, "tile": (3, 4), "grid": (2, 2)}
    found = spark_local.call(run_designs, GEOMETRIES[name], sizes)
    assert set(found) == set(DESIGNS)
    for design, one in found.items():
        assert one["right"], (design, one)


def test_costs_are_those_of_the_designs(spark_local: EngineProcess) -> None:
    sizes = {"iterate": (4, 0, 0, 0), "maps": 2, "tile": (4, 4), "grid": (2, 1)}
    found = spark_local.call(run_designs, GEOMETRIES["as the slide network"], sizes)
    assert all(one["right"] for one in found.values()), found
    # 8x8 outputs, kernel 5x5, padding 2: the padded image is 12x12.
    assert found["2"]["replication"] == 25.0
    assert found["2b"]["replication"] == pytest.approx(5 * 12 / 8)  # rows go whole
    assert found["3"]["replication"] == pytest.approx(4 * 8 * 8 / 64)
    assert found["rows-columns"]["replication"] == pytest.approx(2 * 8 * 12 / 64)
    assert found["batch"]["replication"] == 1.0
    assert found["batch-channels"]["replication"] == 2.0
    assert found["1"]["jobs"] == 2
    assert found["2b"]["jobs"] == 5
    assert found["batch"]["shuffled"] == 0
    assert all(one["broadcast"] > 4 * 3 * 25 * 8 for one in found.values())
    assert all(found[name]["shuffled"] > 0 for name in found if name != "batch")


def run_literal(engine: Any, geometry: Geometry) -> dict[str, Any]:
    """Over there: the literal forms, whole."""
    import numpy as np

    from sixfold.studies.convolution import direct
    from sixfold.studies.lab.cluster import Cluster
    from sixfold.studies.lab.loopnest import literal
    from sixfold.studies.lab.problem import Problem

    cluster = Cluster(engine, 4)
    problem = Problem(geometry=geometry, block=2, dtype="float64")
    wanted = direct.forward(problem.all_images(), problem.weights(), geometry)
    runs = {
        "1": literal.literal1(cluster, problem, literal.jobs_of_design1(problem)),
        "2": literal.literal2(cluster, problem, wanted),
        "2b": literal.literal2b(cluster, problem, wanted),
    }
    return {
        name: (float(np.abs(run.outputs - wanted).max()), run.cost.jobs, run.records)
        for name, run in runs.items()
    }


def test_literal_forms_equal_the_direct_loop_nest(spark_local: EngineProcess) -> None:
    geometry = Geometry.of((3, 2, 1, 2), (2, 2, 2, 2), padding=(1, 0), stride=(2, 1))
    found = spark_local.call(run_literal, geometry)
    points = 3 * 2 * 2 * 1 * 1 * 2 * 2
    assert {name: records for name, (_, _, records) in found.items()} == dict.fromkeys(
        found, points
    )
    assert max(error for error, _, _ in found.values()) < 1e-12
    assert {name: jobs for name, (_, jobs, _) in found.items()} == {"1": 4, "2": 1, "2b": 2}
