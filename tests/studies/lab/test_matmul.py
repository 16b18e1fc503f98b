from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.spark_masters import EngineProcess

from sixfold.core.errors import UserError
from sixfold.studies.lab.blocks import Block, take_samples
from sixfold.studies.lab.matmul.model import Rates, alone_s, crossover, predict
from sixfold.studies.lab.matmul.operands import Parts, Product, largest_error
from sixfold.studies.lab.matmul.study import sizes

RATES = Rates(
    job_s=0.1,
    stage_s=0.02,
    peak_flops=50e9,
    memory_bytes_s=10e9,
    alone_flops=50e9,
    alone_bytes_s=10e9,
    shuffle_bytes_s=200e6,
    broadcast_bytes_s=100e6,
)
PARTS = Parts(inner=2, columns=2)


@pytest.mark.parametrize("word", ["", "0", "3x4", "axbxc", "1x2x3x4", "-5"])
def test_what_is_no_product_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="is no product"):
        sizes(word)


def test_the_model_adds_up_its_parts() -> None:
    product = Product(m=1000, k=100, n=50, block_rows=250)
    assert predict("row", product, PARTS, RATES, 2).broadcast_s == 100 * 50 * 4 / 100e6
    assert predict("row", product, PARTS, RATES, 2).shuffle_s == 0
    outer = predict("outer", product, PARTS, RATES, 2)
    assert outer.shuffle_s == pytest.approx((1000 * 100 + 2 * 1000 * 50) * 4 / 200e6)
    block = predict("block", product, PARTS, RATES, 2)
    assert block.shuffle_s == pytest.approx((2 * 1000 * 100 + 4 * 100 * 50) * 4 / 200e6)
    assert block.jobs_s == pytest.approx(0.12)


def test_the_crossover_is_where_both_take_as_long() -> None:
    n = crossover("row", PARTS, RATES, 2, 65536)
    assert n is not None
    product = Product(m=int(n), k=int(n), n=int(n), block_rows=-(-int(n) // 4))
    forecast = predict("row", product, PARTS, RATES, 2).total_s
    assert forecast == pytest.approx(alone_s(product, RATES), rel=0.01)
    assert crossover("outer", PARTS, RATES, 2, 65536) is None or n < 10_000
    assert crossover("row", PARTS, RATES, 1, 65536) is None


def test_samples_find_a_wrong_product() -> None:
    product = Product(m=7, k=5, n=3, block_rows=4, dtype="float64")
    blocks: list[Block] = [
        ((product.bounds(b)[0], 0), product.left(b) @ product.right()) for b in range(2)
    ]
    assert largest_error(product, [take_samples(block) for block in blocks]) < 1e-15
    assert largest_error(product, [take_samples(blocks[0])]) == np.inf
    blocks[1] = (blocks[1][0], blocks[1][1] * 1.001)
    assert largest_error(product, [take_samples(block) for block in blocks]) > 1e-6


def multiply_all(engine: Any, cases: list[tuple[int, int, int]]) -> list[tuple[str, float, int]]:
    """Over there: the largest difference of each way from NumPy's product, and bytes shuffled."""
    import numpy as np

    from sixfold.studies.lab.cluster import Cluster
    from sixfold.studies.lab.matmul.operands import WAYS, Parts, Product

    cluster = Cluster(engine, 3)
    found = []
    for m, k, n in cases:
        product = Product(m=m, k=k, n=n, block_rows=max(1, m // 3), dtype="float64")
        wanted = np.concatenate([product.left(b) for b in range(product.blocks)]) @ product.right()
        for way, run in WAYS.items():
            kernel_s = cluster.context.accumulator(0.0)
            rdd = run(cluster, product, Parts(inner=3, columns=2), kernel_s)
            blocks, cost = cluster.measured(way, rdd.collect)
            result = np.full((m, n), np.nan)
            for (i, j), values in blocks:
                result[i : i + values.shape[0], j : j + values.shape[1]] = values
            assert kernel_s.value > 0
            found.append((way, float(np.abs(result - wanted).max()), cost.shuffle_bytes))
    return found


@pytest.mark.full
@pytest.mark.spark
def test_every_way_gives_the_product(spark_local: EngineProcess) -> None:
    for way, error, shuffled in spark_local.call(multiply_all, [(37, 23, 19)]):
        assert error < 1e-12, way
        assert (shuffled > 0) == (way != "row")


@pytest.mark.spark
@pytest.mark.full
def test_the_smallest_products(spark_local: EngineProcess) -> None:
    found = spark_local.call(multiply_all, [(1, 1, 1), (2, 1, 3), (5, 7, 1)])
    assert max(error for _, error, _ in found) < 1e-12
