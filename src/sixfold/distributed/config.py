"""Settings of where ranks run."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.settings import Settings, option

# A rank takes some 100 MB and some sockets: thousands of them leave a machine without either.
MOST_RANKS_OF_A_HOST = 512


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Settings):
    """Where the ranks run."""

    engine: str = option("local", "where ranks run", choices=("inline", "local", "spark"))
    workers: int | None = option(
        None,
        "number of ranks, or the least and most (default: one per core)",
        form="N|MIN:MAX",
        ge=1,
    )
    min_workers: int | None = option(
        None, "MIN of --workers MIN:MAX: fewer ranks wait for others (default 1; sync only)", ge=1
    )
    master: str | None = option(
        None,
        "Spark master: local[N], local-cluster[...], spark://..., sc://... (default: "
        "spark-submit's)",
    )
    spark_conf: tuple[str, ...] = option((), "a Spark setting; may be repeated", form="KEY=VALUE")
    tls: str = option(
        "auto",
        "encrypt what ranks, launcher and servers tell each other: auto (where a Spark master is "
        "not on this host), true, false",
        choices=("auto", "true", "false"),
    )
    max_restarts: int | None = option(
        None,
        "lost ranks to be replaced; where ranks cannot go on alone, restarts of all (default: 3, "
        "but 0 for restarts of all on local; param_server: 10 each)",
        ge=0,
    )

    @classmethod
    def expand(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take `workers` of the form MIN:MAX apart.

        >>> EngineConfig.expand({"workers": "2:8"})
        {'workers': '8', 'min_workers': '2'}
        """
        least, colon, most = str(given.get("workers", "")).partition(":")
        if not colon:
            return given
        return {**given, "workers": most, "min_workers": least}

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

    def range_problems(self, command: str) -> list[str]:
        """That a command whose ranks do not come and go takes no least number of them."""
        if self.min_workers is None:
            return []
        return [
            f"--workers {self.min_workers}:{self.workers or ''}: only for `sixfold train`; "
            f"`sixfold {command}` takes a number of workers"
        ]

    def cross_problems(self) -> list[str]:
        """What is only for Spark, and what Spark could not read."""
        found = []
        if self.min_workers is not None and self.min_workers > (self.workers or 0):
            most = "give the most too" if self.workers is None else "expected MIN <= MAX"
            found.append(f"--workers {self.min_workers}:{self.workers or ''}: {most}")
        if self.engine != "spark":
            if (self.workers or 0) > MOST_RANKS_OF_A_HOST:
                found.append(
                    f"--workers {self.workers}: at most {MOST_RANKS_OF_A_HOST} on --engine "
                    f"{self.engine}, where every rank is a process or thread of this machine"
                )
            if self.master is not None:
                found.append(f"--master {self.master}: only for --engine spark")
            if self.spark_conf:
                found.append("--spark-conf: only for --engine spark")
        if self.engine == "inline" and self.tls == "true":
            found.append("--tls true: ranks of --engine inline send nothing over a wire")
        return found + [
            f"--spark-conf {setting!r}: expected key=value"
            for setting in self.spark_conf
            if "=" not in setting
        ]
