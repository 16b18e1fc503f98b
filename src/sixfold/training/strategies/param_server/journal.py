"""What a run with parameter servers writes: metrics in the order of acceptance, workers' times.

One process writes for all, so a step's number grows by one with every line, whoever made it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from sixfold.core.run_directory import JsonLines, RankFiles

FLUSH_S = 0.5
FLUSH_STEPS = 10
REPORT_S = 1.0


class Journal:
    """Metrics and time lines in the run directory, and word of progress to the launcher.

    What the files hold beyond `step`, the number of steps made before, is dropped.
    """

    def __init__(
        self,
        files: RankFiles,
        on_event: Callable[[Mapping[str, Any]], None],
        step: int,
        workers: int,
    ) -> None:
        files.fence()
        self._listen = on_event
        self._metrics = JsonLines(files.path / "metrics.jsonl", up_to_step=step)
        self._timelines = [
            JsonLines(files.path / "timeline" / f"rank-{worker:04d}.jsonl", up_to_step=step)
            for worker in range(workers)
        ]
        self._waiting: list[tuple[int, dict[str, Any], dict[str, Any]]] = []
        self._flushed_at = self._reported_at = float("-inf")

    def step(self, worker: int, step: int, line: dict[str, Any], times: dict[str, float]) -> float:
        """Log a worker's step, the `step`-th to be accepted; the time of that in Unix seconds.

        `line` is loss and whatever else is known, `times` seconds of each phase, as in a time line.
        """
        now = time.time()
        seconds = {name: round(float(value), 7) for name, value in times.items()}
        metrics = {"step": step, "time": now, **line, "worker": worker}
        self._waiting.append((worker, metrics, {"step": step, **seconds}))
        if now - self._flushed_at > FLUSH_S or len(self._waiting) >= FLUSH_STEPS:
            self.flush()
        if now - self._reported_at > REPORT_S:
            self._reported_at = now
            self._listen({"kind": "progress", **metrics})
        return now

    def evaluation(self, step: int, line: dict[str, Any]) -> None:
        """Log an evaluation and tell the launcher."""
        self.flush()
        self._metrics.append({"step": step, "time": time.time(), **line})
        self._listen({"kind": "evaluation", "step": step, **line})

    def flush(self) -> None:
        """Write what waits."""
        self._flushed_at = time.time()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._metrics.append(*(metrics for _, metrics, _ in waiting))
            for worker, timeline in enumerate(self._timelines):
                lines = [times for number, _, times in waiting if number == worker]
                if lines:
                    timeline.append(*lines)

    def close(self) -> None:
        """Write what waits and close."""
        self.flush()
        self._metrics.close()
        for timeline in self._timelines:
            timeline.close()
