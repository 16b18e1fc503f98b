"""Settings of where ranks run, and their checks."""

from __future__ import annotations

from dataclasses import dataclass

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
