"""Simulation of larger clusters by formulas: every strategy from one worker to thousands.

The step model is asked about a machine that is not here: the calibrated host, many times, with
given links between. What grows with the number of workers is in it: exchanges with every peer,
ranks of a host that share its link, the slowest of many ranks (its tail goes on exponentially
beyond what was measured), ranks without a logical shard, and failures, after which a process group
starts again from its last checkpoint. It remains an extrapolation, and its intervals say how much
is unknown: they are what draws of the inputs make of it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sixfold.perf.plan.calibration import Calibration
from sixfold.perf.plan.candidates import Candidate, Prediction, worker_counts
from sixfold.perf.plan.cluster import Cluster, links_with, machine_with, with_failures
from sixfold.perf.plan.model import Model
from sixfold.training.strategies.model_parallel.grid import Grid, parse_grid

DRAWS = 400
OWN_SIGMA, EXCHANGE_SIGMA, TAIL_SIGMA, MTBF_SIGMA = 0.10, 0.30, 0.50, 0.70
"""Standard deviations of the logarithms of: a rank's own time (the error bar of predictions on the
calibrated machine), an exchange's (overheads and contention of a network that was not measured),
the excess of the slowest rank (a tail that was not seen), the time between failures (which differs
that much between clusters)."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One way on so many workers; times are seconds."""

    prediction: Prediction  # the step model's, for the cluster
    mean_s: float  # of a batch, on average
    low_s: float  # a twentieth of the draws is below
    high_s: float  # a twentieth of the draws is above
    run_s: float  # of the whole run, failures and restarts included
    run_low_s: float  # a twentieth of the draws is below
    run_high_s: float  # a twentieth of the draws is above
    failures: float  # expected during the run


def simulate(model: Model, cluster: Cluster, *, counts: Sequence[int] | None = None) -> list[Point]:
    """Every way that was rehearsed, on growing parts of the cluster: by default powers of two."""
    found = []
    for workers in counts or worker_counts(cluster.workers):
        grown = _grown(model, cluster, workers)
        for way in _ways(grown, workers):
            found.append(_point(grown, grown.predict(way), cluster))
    return found


def _grown(model: Model, cluster: Cluster, workers: int) -> Model:
    machine = machine_with(model.calibration.machine, cluster, workers)
    calibration: Calibration = dataclasses.replace(model.calibration, machine=machine)
    host = model.calibration.machine
    return dataclasses.replace(
        model, calibration=calibration, links=lambda count: links_with(host, cluster, count)
    )


def _ways(model: Model, workers: int) -> list[Candidate]:
    found = [Candidate(strategy="sync", workers=workers)]
    if workers == 1:
        return found
    meshes = {point.mesh for point in model.profile.network.points if point.mesh}
    for text in sorted(meshes):
        grid = parse_grid(text)[0]
        if grid is not None and workers % grid.size == 0:
            whole = Grid(batch=workers // grid.size, mesh=grid.mesh)
            found.append(Candidate(strategy="model_parallel", workers=workers, grid=whole))
    if model.work.batch_size >= workers:
        found.append(Candidate(strategy="local_sgd", workers=workers))
    found.append(Candidate(strategy="hogwild", workers=workers))
    found.append(Candidate(strategy="param_server", workers=workers))
    return [way for way in found if model.knows(way)]


def _point(model: Model, prediction: Prediction, cluster: Cluster) -> Point:
    """The means, and what draws of the inputs make of them."""
    machine, steps = model.calibration.machine, model.work.steps
    random = np.random.default_rng(0)

    def draw(sigma: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.exp(sigma * random.standard_normal(DRAWS))

    excess = max(prediction.mean_s - prediction.compute_s - prediction.exchange_s, 0.0)
    batches = (
        prediction.compute_s * draw(OWN_SIGMA)
        + prediction.exchange_s * draw(EXCHANGE_SIGMA)
        + excess * draw(TAIL_SIGMA)
    )
    restart_s = machine.startup_s + machine.opening_s
    # A process group ends with any of its hosts; of a pool's workers only one batch is lost.
    hosts = 0 if prediction.candidate.strategy == "param_server" else machine.hosts

    def run(batch_s: float, mtbf_hours: float) -> float:
        work_s = batch_s * steps
        if not hosts:
            return restart_s + work_s
        return restart_s + with_failures(
            work_s,
            hosts=hosts,
            mtbf_hours=mtbf_hours,
            checkpoint_s=60 * cluster.checkpoint_minutes,
            restart_s=restart_s,
        )

    hours = cluster.mtbf_hours * draw(MTBF_SIGMA)
    runs = [run(float(one), float(two)) for one, two in zip(batches, hours, strict=True)]
    low, high = np.quantile(batches, [0.05, 0.95])
    run_low, run_high = np.quantile(runs, [0.05, 0.95])
    run_s = run(prediction.mean_s, cluster.mtbf_hours)
    return Point(
        prediction=prediction,
        mean_s=prediction.mean_s,
        low_s=float(low),
        high_s=float(high),
        run_s=run_s,
        run_low_s=float(run_low),
        run_high_s=float(run_high),
        failures=machine.hosts * run_s / (cluster.mtbf_hours * 3600),
    )


def at(points: Sequence[Point], workers: int) -> list[Point]:
    """Those for so many workers, the quickest run first."""
    found = [point for point in points if point.prediction.candidate.workers == workers]
    return sorted(found, key=lambda point: (not point.prediction.fits, point.run_s))


def quickest(points: Sequence[Point], strategy: str | None = None) -> Point:
    """The way and the number of workers, of one strategy or of all, whose run is shortest."""
    return min(
        (
            p
            for p in points
            if strategy in (None, p.prediction.candidate.strategy) and p.prediction.fits
        ),
        key=lambda point: point.run_s,
        default=points[0],
    )
