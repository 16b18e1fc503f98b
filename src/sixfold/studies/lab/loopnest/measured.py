"""What was measured of a design, and of its literal form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sixfold.studies.lab.cost import Cost
from sixfold.studies.lab.loopnest.check import Verdict
from sixfold.studies.lab.loopnest.literal import Literal


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A design, checked and measured."""

    name: str  # of the design
    small: Verdict  # every output of a few images, in float64, against the direct loop nest
    samples: Verdict  # samples of the full size against the definition
    costs: list[Cost]  # of every timed run
    cost: Cost  # of the median run
    sent: int  # elements of input that were cut out for tasks, in that run
    replication: float  # the same, as a multiple of the input
    kernel_s: float  # time inside the kernels, over all tasks, in that run
    multiply_adds_a_task: float  # of the whole problem, divided by the tasks that compute

    @property
    def right(self) -> bool:
        """Whether all that was compared was right."""
        return self.small.right and self.samples.right

    def as_data(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self) | {"right": self.right}


@dataclass(frozen=True, kw_only=True)
class LiteralRun:
    """The literal form of a design, run in part or at a small size."""

    name: str
    what: str  # what was run
    right: Verdict  # its result against the direct loop nest
    run: Literal
    jobs_in_all: int  # jobs at full size
    records_in_all: int  # products at full size, each a record
    estimate_s: float  # time at full size, extrapolated

    def as_data(self) -> dict[str, Any]:
        """Plain data; the outputs themselves are left out."""
        return {
            "name": self.name,
            "what": self.what,
            "right": dataclasses.asdict(self.right),
            "cost": dataclasses.asdict(self.run.cost),
            "records": self.run.records,
            "jobs_in_all": self.jobs_in_all,
            "records_in_all": self.records_in_all,
            "estimate_s": self.estimate_s,
            "extrapolated": True,
        }
