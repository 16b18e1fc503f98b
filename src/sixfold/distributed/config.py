"""Settings of where ranks run, and their checks."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Settings):
    """Where the ranks run."""

    engine: str = option("local", "where ranks run", choices=("inline", "local", "spark"))
    workers: int | None = option(None, "number of ranks (default: one per core)")
    master: str | None = option(
        None, "Spark master: local[N], local-cluster[...], spark://... (default: spark-submit's)"
    )
    spark_conf: tuple[str, ...] = option((), "a Spark setting; may be repeated", form="KEY=VALUE")
    max_restarts: int | None = option(
        None, "restarts after a lost rank (default: 0 on local, 3 on spark; param_server: 10 each)"
    )

    def origin_problems(self, taken: Collection[str], file: Path) -> list[str]:
        """Which settings of a run could have Spark run another's code, or send ours elsewhere."""
        found = []
        if "master" in taken and not (self.master or "local").startswith("local"):
            found.append(f"--master {self.master}")
        if "spark_conf" in taken:
            # A number, a size or a truth value names no code.
            plain = re.compile(r"[\w.]+=(\d[\d.]*[a-zA-Z]*|true|false)")
            found += [f"--spark-conf {c}" for c in self.spark_conf if not plain.fullmatch(c)]
        return [
            f"{file} names {one}; a file's settings may be a stranger's: give it again, or give "
            "--trust-model if you trust its writer"
            for one in found
        ]


def engine_problems(engine: EngineConfig) -> list[str]:
    """Everything that is wrong with the settings of the engine by themselves."""
    found = []
    if engine.workers is not None and engine.workers < 1:
        found.append(f"--workers {engine.workers}: must be at least 1")
    if engine.max_restarts is not None and engine.max_restarts < 0:
        found.append(f"--max-restarts {engine.max_restarts}: must not be negative")
    if engine.engine != "spark":
        if engine.master is not None:
            found.append(f"--master {engine.master}: only for --engine spark")
        if engine.spark_conf:
            found.append("--spark-conf: only for --engine spark")
    for setting in engine.spark_conf:
        if "=" not in setting:
            found.append(f"--spark-conf {setting!r}: expected key=value")
    return found
