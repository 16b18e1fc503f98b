"""`sixfold lab matmul`: three ways to divide a product, each predicted, measured and checked."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.studies.lab.cluster import Cluster
from sixfold.studies.lab.config import MatmulConfig
from sixfold.studies.lab.cost import Cost
from sixfold.studies.lab.findings import Findings
from sixfold.studies.lab.matmul.block import block_product
from sixfold.studies.lab.matmul.calibrate import calibrate
from sixfold.studies.lab.matmul.model import WAYS, alone_s, predict
from sixfold.studies.lab.matmul.operands import (
    Parts,
    Product,
    largest_error,
    multiply,
    take_samples,
)
from sixfold.studies.lab.matmul.outer import outer_product
from sixfold.studies.lab.matmul.row_split import row_split
from sixfold.studies.lab.matmul.summary import MeasuredProduct, MeasuredWay, tell
from sixfold.studies.lab.progress import Progress

Show = Callable[[str], None]

RUN = {"row": row_split, "outer": outer_product, "block": block_product}

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""Largest error, as a part of the usual sum of the absolute values of what was added."""


def problems(config: MatmulConfig) -> list[str]:
    """What is wrong with the settings, one line each."""
    found: list[str] = []
    options = config.matmul
    for word in options.products.split(","):
        try:
            sizes(word)
        except UserError as error:
            found += error.problems
    found += [unknown("way", way, WAYS) for way in options.ways.split(",") if way not in WAYS]
    return found


def sizes(word: str) -> tuple[int, int, int]:
    """Sizes of a product from its word.

    Raises:
        UserError: if they make no sense.

    >>> sizes("1024000x75x32"), sizes("512")
    ((1024000, 75, 32), (512, 512, 512))
    """
    parts = word.strip().split("x")
    if all(part.isdigit() and int(part) for part in parts) and len(parts) in (1, 3):
        numbers = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
        return numbers[0], numbers[1], numbers[2]
    raise UserError(f"--products: {word!r} is no product: expected MxKxN, such as 1024000x75x32")


def product_of(word: str, config: MatmulConfig, slots: int) -> Product:
    """A product of the list; its rows are cut into at least two blocks for every slot."""
    m, k, n = sizes(word)
    rows = min(config.matmul.block_rows, -(-m // (2 * slots)))
    return Product(m=m, k=k, n=n, block_rows=rows, seed=config.matmul.seed)


def study(cluster: Cluster, config: MatmulConfig, show: Show) -> Findings:
    """Calibrate, predict, measure; see the module."""
    options = config.matmul
    rates = calibrate(cluster)
    show(
        f"a slot multiplies at {rates.peak_flops / 1e9:.1f} GFLOP/s and copies at "
        f"{rates.memory_bytes_s / 1e9:.1f} GB/s; a shuffle moves {rates.shuffle_bytes_s / 1e6:.0f} "
        f"MB/s, a broadcast {rates.broadcast_bytes_s / 1e6:.0f} MB/s; a job takes "
        f"{1000 * rates.job_s:.0f} ms, a stage {1000 * rates.stage_s:.0f} ms more"
    )
    parts = Parts(inner=options.inner or cluster.slots, columns=options.columns)
    measured = []
    words = list(dict.fromkeys(options.products.split(",")))
    names = list(dict.fromkeys(options.ways.split(",")))
    progress = Progress(len(words) * len(names), show)
    for word in words:
        product = product_of(word, config, cluster.slots)
        alone = serial_s(product, options.repeats)
        show(f"{product.name} on one thread, without Spark: {alone:.3f} s")
        ways = []
        for way in names:
            progress.begin(f"{product.name} {way}")
            forecast = predict(way, product, parts, rates, cluster.slots)
            one = measure(cluster, product, way, parts, config)
            ways.append(dataclasses.replace(one, predicted=forecast))
            state = "right" if one.right else f"WRONG: error {one.error:.1e}"
            show(
                f"{product.name} {way}: {one.cost.wall_s:.3f} s, predicted "
                f"{forecast.total_s:.3f} s, {state}"
            )
        measured.append(
            MeasuredProduct(
                product=product,
                alone_s=alone,
                alone_predicted_s=alone_s(product, rates),
                ways=ways,
            )
        )
    return tell(cluster, rates, parts, measured, options.block_rows)


def serial_s(product: Product, repeats: int) -> float:
    """Median time of the product on one thread of this process, the factors at hand."""
    with one_thread():
        right = product.right()
        blocks = [product.left(block) for block in range(product.blocks)]
        times = []
        for _ in range(1 + repeats):
            began = time.perf_counter()
            for rows in blocks:
                multiply(rows, right)
            times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def measure(
    cluster: Cluster, product: Product, way: str, parts: Parts, config: MatmulConfig
) -> MeasuredWay:
    """Run a way until it has been timed enough, after one run that makes the factors."""
    costs: list[tuple[Cost, float]] = []
    error = 0.0
    while len(costs) <= config.matmul.repeats:
        kernel_s = cluster.context.accumulator(0.0)

        def action(kernel_s: Any = kernel_s) -> list[Any]:
            told: list[Any] = (
                RUN[way](cluster, product, parts, kernel_s).map(take_samples).collect()
            )
            return told

        told, cost = cluster.measured(f"{way} {product.name}", action)
        error = max(error, largest_error(product, told))
        costs.append((cost, kernel_s.value))
        if sum(cost.wall_s for cost, _ in costs[1:]) > config.matmul.seconds:
            break
    timed = sorted(costs[1:], key=lambda pair: pair[0].wall_s)
    cost, kernel = timed[(len(timed) - 1) // 2]
    return MeasuredWay(
        way=way,
        costs=[cost for cost, _ in costs[1:]],
        cost=cost,
        kernel_s=kernel,
        error=error,
        right=error <= TOLERANCE[product.dtype],
        predicted=None,
    )
