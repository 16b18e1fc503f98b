"""What a run costs: core hours, and money if a core hour has a price."""

import math
from dataclasses import dataclass
from typing import Any

from sixfold.perf.plan.candidates import Prediction


@dataclass(frozen=True, kw_only=True)
class Price:
    """Of a core for an hour; 0: not known."""

    of_core_hour: float = 0.0
    servers: int = 1  # of `param_server`, which have a core each

    def cores(self, prediction: Prediction) -> int:
        """Cores that a way keeps for itself: one for each rank and server."""
        way = prediction.candidate
        return way.workers + (self.servers if way.strategy == "param_server" else 0)

    def core_hours(self, prediction: Prediction, seconds: float) -> float:
        """Of so many seconds of a way."""
        return self.cores(prediction) * seconds / 3600

    @property
    def head(self) -> str:
        """The heading of a table's column."""
        return "cost" if self.of_core_hour else "core hours"

    def cell(self, core_hours: float) -> str:
        """What the column has."""
        cost = core_hours * (self.of_core_hour or 1.0)
        return f"{cost:.3g}" if math.isfinite(cost) else "never"

    def of_run(self, prediction: Prediction) -> dict[str, Any]:
        """Core hours of a whole run, and its cost, for `plan.json`."""
        core_hours = self.core_hours(prediction, prediction.total_s)
        return {"core_hours": round(core_hours, 9), **self.plain(core_hours)}

    def plain(self, core_hours: float) -> dict[str, Any]:
        """For `plan.json`."""
        if not self.of_core_hour:
            return {}
        cost = core_hours * self.of_core_hour
        return {"cost": round(cost, 9) if math.isfinite(cost) else None}


FREE = Price()
