"""Short trainings, from which is read how many epochs each way needs to a target (`--to`).

What a batch does for the network depends on how it is computed only where strategies change the
result: all ways that equal serial training share one probe for each batch size, the others have one
each.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.errors import SixfoldError
from sixfold.core.events import OnEvent
from sixfold.distributed.engines import Engine
from sixfold.perf.plan.candidates import Candidate, Prediction, count_workers
from sixfold.perf.plan.learning_curve import Curve
from sixfold.perf.plan.ranking import equality
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.selection import Target
from sixfold.training.strategies.spec import BIT_FOR_BIT, ROUNDING

EVALUATIONS = 24
"""Of a probe, as far as the time lasts."""
ASYNCHRONOUS = "param_server"
"""Its workers never meet, so there is nothing to evaluate on the way."""


@dataclass(frozen=True)
class Learning:
    """Ways that learn alike: a strategy with so many workers, or all that equal serial training."""

    strategy: str
    workers: int  # 0 where their number does not matter
    batch_size: int

    @property
    def title(self) -> str:
        """For messages."""
        who = f" on {count_workers(self.workers)}" if self.workers else ""
        return f"{self.strategy}{who}, {self.batch_size} images a batch"


SERIAL = "sync"


def learning_of(prediction: Prediction, batch_size: int) -> Learning | None:
    """With which others a way learns alike; None if that cannot be probed."""
    way = prediction.candidate
    if way.strategy == ASYNCHRONOUS:
        return None
    if equality(prediction) in (BIT_FOR_BIT, ROUNDING) or way.workers == 1:
        return Learning(SERIAL, 0, batch_size)
    return Learning(way.strategy, way.workers, batch_size)


def probe_all(
    config: TrainConfig,
    ways: Sequence[tuple[Learning, Candidate, float]],
    images: int,
    target: Target,
    budget_s: float,
    folder: Path,
    engine: Engine,
    on_event: OnEvent,
) -> tuple[dict[Learning, Curve], list[str]]:
    """The course of a short training for each way of learning, and what failed.

    Args:
        config: the training that is planned.
        ways: what is probed, on which way it is quickest, and the predicted seconds of a batch.
        images: of the training part.
        target: where a probe may stop.
        budget_s: seconds for all probes together.
        folder: where they write.
        engine: on which they run.
        on_event: called with what is being done.
    """
    curves: dict[Learning, Curve] = {}
    notes: list[str] = []
    for done, (learning, way, batch_s) in enumerate(ways):
        share_s = budget_s / len(ways)
        on_event(
            {
                "kind": "note",
                "text": f"probe {done + 1} of {len(ways)}: {learning.title}, {share_s:.0f} s at "
                "most",
            }
        )
        epoch_s = batch_s * images / learning.batch_size
        # Of a quick network several times an epoch, of a slow one as often as its share allows.
        every = min(max(share_s / epoch_s / EVALUATIONS, learning.batch_size / images), 1.0)
        out = folder / f"{learning.strategy}-{learning.workers}-{learning.batch_size}"
        try:
            probe = _probe(config, learning, way, target, every, share_s, out)
            train(probe, engine=engine, hold=False)
        except SixfoldError as error:
            notes.append(f"{learning.title}: could not be probed: {error}")
            continue
        curves[learning] = read_curve(out, target.metric)
    return curves, notes


def _probe(
    config: TrainConfig,
    learning: Learning,
    way: Candidate,
    target: Target,
    every: float,
    share_s: float,
    out: Path,
) -> TrainConfig:
    """The settings of a short training."""
    workers = learning.workers or way.workers
    return dataclasses.replace(
        config,
        strategy=dataclasses.replace(config.strategy, strategy=learning.strategy, grid=""),
        engine=dataclasses.replace(config.engine, workers=workers),
        training=dataclasses.replace(
            config.training, batch_size=learning.batch_size, evaluate_every=every
        ),
        selection=dataclasses.replace(
            config.selection,
            stop_at=f"{target.metric}={target.value!r}",
            max_time=f"{max(share_s, 1.0):.0f}s",
        ),
        run=dataclasses.replace(
            config.run, out=str(out), overwrite=True, resume=False, keep_checkpoints=1
        ),
    )


def read_curve(run: Path, metric: str) -> Curve:
    """The evaluations of a training on the validation part."""
    epochs: list[float] = []
    values: list[float] = []
    for text in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        value = line.get(f"eval_{metric}")
        if line.get("part") == "validation" and value is not None:
            if epochs and line["epoch"] == epochs[-1]:
                continue  # the last one, told again with the test part
            epochs.append(float(line["epoch"]))
            values.append(float(value))
    return Curve(tuple(epochs), tuple(values))
