"""What rank 0 decides in the course of a training, and every rank does."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from sixfold.distributed.collectives import all_gather_data
from sixfold.distributed.process_group import Communicator
from sixfold.training.callbacks import Callbacks, Moment
from sixfold.training.config import TrainConfig
from sixfold.training.progress import Progress
from sixfold.training.selection import OUT_OF_TIME, judged, selects
from sixfold.training.watch import WINDOW, Expected, StepWatch


class Steering:
    """Decisions of rank 0 that all ranks hear of, at points where they hold the same weights.

    `deadline` is the Unix time from which no step is begun; `expected` is what steps should take.
    """

    def __init__(
        self,
        comm: Communicator,
        config: TrainConfig,
        deadline: float | None,
        expected: Expected | None = None,
    ) -> None:
        self._world, self._config = comm, config
        self._deadline = deadline if config.selection.max_time else None
        names = config.selection.callback
        self._has_callbacks = bool(names)
        self._callbacks = Callbacks(names) if names and comm.rank == 0 else None
        self._watch = StepWatch(expected) if expected else None
        # Why the training stands still, if it does: what the result, or the launcher, is told.
        self.interrupted: dict[str, Any] = {}

    @property
    def meets_always(self) -> bool:
        """Whether ranks hear from rank 0 at every point, not only after evaluations."""
        return self._has_callbacks or self._deadline is not None

    def took(self, times: Mapping[str, float]) -> None:
        """Where the time of a step went on this rank."""
        if self._watch is not None:
            self._watch.took(self._world.size, times)

    def evaluated(
        self, progress: Progress, metrics: Mapping[str, float | None] | None, usual: str
    ) -> Progress:
        """What an evaluation on the validation part decides, on every rank, by rank 0's metrics."""
        after = progress
        if metrics is not None:
            after = judged(progress, self._config, metrics, usual)
        # A rank that may take the place of rank 0 knows what that has found.
        if not (selects(self._config) or self._world.elastic):
            return after
        told = all_gather_data(self._world, dataclasses.asdict(after))[0]
        return Progress(**told)

    def consulted(
        self, progress: Progress, moment: Moment, events: tuple[str, ...]
    ) -> tuple[Progress, dict[str, float]]:
        """What callbacks and the clock decide, on every rank; and what is to be logged."""
        if self._watch is not None and events[0] == "on_step" and progress.step % WINDOW == 0:
            deviation = all_gather_data(self._world, self._watch.deviation())[0]
            if deviation is not None:
                self.interrupted = {"deviation": deviation}
        if not self.meets_always:
            return progress, {}
        actions: list[list[Any]] = []
        if self._has_callbacks and self._callbacks is None and self._world.rank == 0:
            self._callbacks = Callbacks(self._config.selection.callback)  # it was not rank 0 before
        if self._callbacks is not None and self._world.rank == 0:
            for event in events:
                actions += self._callbacks.call(event, moment)
        # At least one step is made, or a run that is resumed again and again would stand still.
        is_late = (
            "on_step" in events and self._deadline is not None and time.time() >= self._deadline
        )
        actions, is_late = all_gather_data(self._world, [actions, is_late])[0]
        if is_late:
            self.interrupted = {"stopped_by": OUT_OF_TIME}
        logged: dict[str, float] = {}
        for kind, *values in actions:
            if kind == "log":
                logged[values[0]] = values[1]
            elif kind == "rate":
                progress = dataclasses.replace(progress, rate_factor=values[0])
            elif kind == "stop":
                reason = f"a callback{': ' if values[0] else ''}{values[0]}"
                progress = dataclasses.replace(progress, stopped=reason)
        return progress, logged

    def figures(self, progress: Progress) -> dict[str, Any]:
        """What `result.json` says of an early end."""
        if progress.stopped:
            return {"stopped_by": progress.stopped}
        return {name: why for name, why in self.interrupted.items() if name == "stopped_by"}
