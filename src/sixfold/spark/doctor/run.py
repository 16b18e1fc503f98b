"""An examination, from the settings to the findings."""

import dataclasses
import time
from typing import Any

from sixfold.core.errors import raise_problems
from sixfold.core.events import OnEvent
from sixfold.spark.doctor.cluster import look_at_cluster
from sixfold.spark.doctor.config import DoctorConfig
from sixfold.spark.doctor.findings import Finding
from sixfold.spark.doctor.here import look_here


def doctor(
    config: DoctorConfig | None = None, *, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Look at this host and, with a master, at a Spark cluster: is all there that a run needs?

    Nothing stays behind, neither files nor processes.

    Args:
        config: what is examined.
        on_event: called with each finding as it comes.

    Returns:
        `findings`, each with `what`, `state` (ok, note or wrong), `seen` and `remedy`; `wrong`,
        how many are wrong; and `wall_s`.

    Raises:
        UserError: if the settings are wrong.
    """
    began = time.monotonic()
    config = config or DoctorConfig()
    raise_problems(config.problems())
    options = config.doctor
    found: list[Finding] = []

    def take(finding: Finding) -> None:
        found.append(finding)
        if on_event is not None:
            on_event({"kind": "finding", **dataclasses.asdict(finding)})

    for finding in look_here(options):
        take(finding)
    if options.master is not None:
        for finding in look_at_cluster(options):
            take(finding)
    return {
        "findings": [dataclasses.asdict(finding) for finding in found],
        "wrong": sum(finding.state == "wrong" for finding in found),
        "wall_s": round(time.monotonic() - began, 3),
    }
