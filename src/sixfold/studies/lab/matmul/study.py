"""`sixfold lab matmul`: three ways to divide a product, each predicted, measured and checked."""

import statistics
import time

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError, problems_of
from sixfold.distributed.process_group.ambient import one_thread
from sixfold.studies.lab.blocks import TOLERANCE, take_samples
from sixfold.studies.lab.cluster import Cluster, Cost
from sixfold.studies.lab.config import MatmulConfig, MatmulOptions
from sixfold.studies.lab.findings import Findings
from sixfold.studies.lab.matmul.model import Rates, alone_s, calibrate, predict
from sixfold.studies.lab.matmul.operands import WAYS, Parts, Product, largest_error, multiply
from sixfold.studies.lab.matmul.summary import MeasuredProduct, MeasuredWay, summarize
from sixfold.studies.lab.run import Progress, Show, repeated


def problems(config: MatmulConfig) -> list[str]:
    """What is wrong with the settings, one line each."""
    options = config.matmul
    found = problems_of(*(lambda word=word: sizes(word) for word in options.products.split(",")))
    return found + [unknown("way", way, WAYS) for way in options.ways.split(",") if way not in WAYS]


def sizes(word: str) -> tuple[int, int, int]:
    """Sizes of a product from its word; a `UserError` if they make no sense.

    >>> sizes("1024000x75x32"), sizes("512")
    ((1024000, 75, 32), (512, 512, 512))
    """
    parts = word.strip().split("x")
    if all(part.isdigit() and int(part) for part in parts) and len(parts) in (1, 3):
        m, k, n = [int(part) for part in parts] * (3 // len(parts))
        return m, k, n
    raise UserError(f"--products: {word!r} is no product: expected MxKxN, such as 1024000x75x32")


def study(cluster: Cluster, config: MatmulConfig, show: Show) -> Findings:
    """Calibrate, predict, measure."""
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
        m, k, n = sizes(word)
        # At least two blocks of rows for every slot.
        rows = min(options.block_rows, -(-m // (2 * cluster.slots)))
        product = Product(m=m, k=k, n=n, block_rows=rows, seed=options.seed)
        alone = serial_s(product, options.repeats)
        show(f"{product.name} on one thread, without Spark: {alone:.3f} s")
        ways = []
        for way in names:
            progress.begin(f"{product.name} {way}")
            one = measure(cluster, product, way, parts, options, rates)
            ways.append(one)
            state = "right" if one.right else f"WRONG: error {one.error:.1e}"
            show(
                f"{product.name} {way}: {one.cost.wall_s:.3f} s, predicted "
                f"{one.predicted.total_s:.3f} s, {state}"
            )
        measured.append(
            MeasuredProduct(
                product=product,
                name=product.name,
                flops=product.flops,
                alone_s=alone,
                alone_predicted_s=alone_s(product, rates),
                ways=ways,
            )
        )
    return summarize(cluster.slots, rates, parts, measured, options.block_rows)


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
    cluster: Cluster, product: Product, way: str, parts: Parts, options: MatmulOptions, rates: Rates
) -> MeasuredWay:
    """Run a way until it has been timed enough, after one run that makes the factors."""
    errors: list[float] = []

    def run() -> tuple[Cost, float]:
        kernel_s = cluster.context.accumulator(0.0)
        sampled, cost = cluster.measured(
            f"{way} {product.name}",
            lambda: WAYS[way](cluster, product, parts, kernel_s).map(take_samples).collect(),
        )
        errors.append(largest_error(product, sampled))
        return cost, kernel_s.value

    runs, (cost, kernel_s) = repeated(
        run, lambda one: one[0].wall_s, repeats=options.repeats, seconds=options.seconds
    )
    return MeasuredWay(
        way=way,
        costs=[one for one, _ in runs],
        cost=cost,
        kernel_s=kernel_s,
        error=max(errors),
        right=max(errors) <= TOLERANCE[product.dtype],
        predicted=predict(way, product, parts, rates, cluster.slots),
    )
