"""Which way is best, and why: the order of the predictions, and three sentences about it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sixfold.core.html.axes import duration
from sixfold.perf.plan.candidates import Prediction, Workload
from sixfold.training.strategies.registry import find_strategy
from sixfold.training.strategies.spec import BIT_FOR_BIT


def ranked(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The quickest first; those that do not fit into memory last."""
    return sorted(predictions, key=lambda found: (not found.fits, found.total_s))


def equality(prediction: Prediction) -> str:
    """How the result relates to serial training's; a grid of groups of one rank is `sync`."""
    candidate = prediction.candidate
    if candidate.strategy == "model_parallel" and not candidate.mesh:
        return BIT_FOR_BIT
    return find_strategy(candidate.strategy).equality


def prediction_plain(found: Prediction) -> dict[str, Any]:
    """A prediction as plain data."""
    values = dataclasses.asdict(found)
    candidate = values.pop("candidate")
    candidate.pop("grid")
    return {
        **candidate,
        "grid": str(found.candidate.grid) if found.candidate.strategy == "model_parallel" else "",
        "result": equality(found),
        **values,
    }


def best(
    predictions: Sequence[Prediction], allowed: Sequence[str] = (BIT_FOR_BIT,)
) -> Prediction | None:
    """The quickest way that fits into memory and is as equal as is asked; None if there is none."""
    found = [p for p in ranked(predictions) if p.fits and equality(p) in allowed]
    return found[0] if found else None


def explain(predictions: Sequence[Prediction], work: Workload) -> list[str]:
    """Three sentences: what is quickest and what limits it; the next best; what would help."""
    order = ranked(predictions)
    if not order or not order[0].fits:
        return [no_way(order)]
    first = order[0]
    exact = best(predictions)
    one = (
        f"{first.candidate.title} is predicted to be quickest, {duration(first.mean_s)} a batch "
        f"on average (nine in ten: {duration(first.low_s)} to {duration(first.high_s)}), "
        f"{100 * first.compute_s / first.mean_s:.0f}% of it a rank's own work; what limits it is "
        f"{first.limit}."
    )
    return [one, _second(order, exact), _remedy(exact or first, work)]


def no_way(order: Sequence[Prediction]) -> str:
    """Why nothing can be recommended."""
    if not order:
        return "Nothing could be predicted: there was no time to rehearse a step."
    least = min(order, key=lambda found: found.host_bytes)
    return (
        f"Nothing fits into memory: even {least.candidate.title} takes "
        f"{least.host_bytes / 1e9:.1f} GB on a host; use more hosts, or a smaller --batch-size."
    )


def _second(order: Sequence[Prediction], exact: Prediction | None) -> str:
    first = order[0]
    if exact is None:
        return "No way that fits equals serial training bit for bit."
    if exact is not first:
        return (
            f"It is {equality(first)}; of the ways that equal serial training "
            f"bit for bit the quickest is {exact.candidate.title}, {duration(exact.mean_s)} a "
            "batch, "
            f"{exact.mean_s / first.mean_s:.2f} times as long, limited by {exact.limit}."
        )
    others = [p for p in order[1:] if p.fits]
    if not others:
        return "It equals serial training bit for bit, and nothing else fits."
    return (
        f"It equals serial training bit for bit; next is {others[0].candidate.title} with "
        f"{duration(others[0].mean_s)}, held back by {others[0].limit}."
    )


def _remedy(found: Prediction, work: Workload) -> str:
    if found.idle_ranks:
        return (
            f"{found.idle_ranks} of {found.candidate.workers} workers have no logical shard: a "
            "larger --batch-size, or --shards, would give them work."
        )
    if found.limit.endswith("exchanges"):
        return "Larger batches, local_sgd, or a faster link would leave less of it to exchanges."
    if found.scheduler_s > found.mean_s:
        return (
            f"Starting takes {found.scheduler_s * work.steps:.1f} s of {found.total_s:.1f}: the "
            "longer the run, the less the choice of workers depends on it."
        )
    if found.limit == "more ranks than cores":
        return "More workers than cores only add exchanges: use as many workers as cores."
    return "More cores would help as long as every worker keeps a logical shard."
