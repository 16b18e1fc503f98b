"""From a study's settings to its result: a table on the terminal, a JSON file, a page."""

import dataclasses
import importlib
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sixfold.core.errors import raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import write_atomically, write_json
from sixfold.core.html.frame import optional_page
from sixfold.core.locks import held
from sixfold.core.version import versions
from sixfold.studies.lab.cluster import open_cluster
from sixfold.studies.lab.config import CONFIGS

Show = Callable[[str], None]
Reading = TypeVar("Reading")


class Done(NamedTuple):
    """A study that has run."""

    right: bool  # whether every result that was checked was right
    lines: list[str]  # for a person


def run_study(config: Any, *, on_event: OnEvent) -> Done:
    """Run the study that takes such settings, one of `CONFIGS`, and write down what it found.

    A `UserError` if the settings make no sense or there is no Spark, a `RunError` if a job failed.
    """
    name = next(name for name, kind in CONFIGS.items() if isinstance(config, kind))
    module = importlib.import_module(f"sixfold.studies.lab.{name.replace('-', '_')}.study")
    raise_problems(list(dict.fromkeys([*config.problems(), *module.problems(config)])))
    options = config.cluster
    out = Path(options.out or f"runs/lab-{name}").absolute()
    started, load_before = time.time(), os.getloadavg()
    with held(out):
        with open_cluster(options.master, options.spark_conf, options.partitions) as cluster:
            findings = module.study(
                cluster, config, lambda text: on_event({"kind": "note", "text": text})
            )
            master, slots = str(cluster.context.master), cluster.slots
        record = {
            "study": name,
            "started": started,
            "seconds": round(time.time() - started, 1),
            "settings": dataclasses.asdict(config),
            "master": master,
            "slots": slots,
            "machine": platform.platform(),
            "load_average": {"before": load_before, "after": os.getloadavg()},
            "versions": versions(),
            "right": findings.right,
            "verdict": findings.verdict,
            "notes": findings.notes,
            **dataclasses.asdict(findings.result),
        }
        lines = findings.lines()
        write_json(out / f"{name}.json", record)
        lines.append(f"written: {out / f'{name}.json'}")
        with optional_page(page := out / f"{name}.html"):
            write_atomically(page, findings.page(record).html().encode())
            lines.append(f"written: {page}")
    return Done(findings.right, lines)


class Progress:
    """Says which part of a study begins, of how many, and about how long the rest may take."""

    def __init__(self, total: int, show: Show) -> None:
        self._total, self._show = total, show
        self._begun, self._at = 0, time.monotonic()

    def begin(self, what: str) -> None:
        """The next part begins; parts before it tell how long the rest may take."""
        left = ""
        if self._begun:
            each = (time.monotonic() - self._at) / self._begun
            left = f", about {each * (self._total - self._begun) / 60:.1f} min left"
        self._begun += 1
        self._show(f"[{self._begun} of {self._total}] {what}{left}")


def repeated(
    run: Callable[[], Reading],
    wall_s: Callable[[Reading], float],
    *,
    repeats: int,
    seconds: float,
    warm_up: int = 1,
) -> tuple[list[Reading], Reading]:
    """What each timed run gave, and what the one of median time gave.

    There is no further repeat once the timed runs have taken so many seconds.
    """
    for _ in range(warm_up):
        run()
    timed: list[Reading] = []
    while len(timed) < repeats and sum(map(wall_s, timed)) <= seconds:
        timed.append(run())
    return timed, sorted(timed, key=wall_s)[(len(timed) - 1) // 2]
