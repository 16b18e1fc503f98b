"""Settings of where ranks run."""

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
    workers: int | None = option(None, "number of ranks (default: one per core)", ge=1)
    master: str | None = option(
        None, "Spark master: local[N], local-cluster[...], spark://... (default: spark-submit's)"
    )
    spark_conf: tuple[str, ...] = option((), "a Spark setting; may be repeated", form="KEY=VALUE")
    max_restarts: int | None = option(
        None,
        "restarts after a lost rank (default: 0 on local, 3 on spark; param_server: 10 each)",
        ge=0,
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

    def cross_problems(self) -> list[str]:
        """What is only for Spark, and what Spark could not read."""
        found = []
        if self.engine != "spark":
            if self.master is not None:
                found.append(f"--master {self.master}: only for --engine spark")
            if self.spark_conf:
                found.append("--spark-conf: only for --engine spark")
        return found + [
            f"--spark-conf {setting!r}: expected key=value"
            for setting in self.spark_conf
            if "=" not in setting
        ]
