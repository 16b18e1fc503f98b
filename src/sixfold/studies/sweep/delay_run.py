"""The launcher of a sweep over Spark's delays: a session for each number of workers."""

import contextlib
import dataclasses
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sixfold.core.errors import problems_of, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.run_directory import as_json
from sixfold.distributed.engines import open_engine
from sixfold.distributed.tasks import Assignment, Task, run_job
from sixfold.studies.sweep.config import SweepDelayConfig
from sixfold.studies.sweep.delay import delay_result
from sixfold.studies.sweep.delay_jobs import measure_session
from sixfold.studies.sweep.delay_plan import SessionPlan, job_kinds, sessions
from sixfold.studies.sweep.delay_report import write_page
from sixfold.studies.sweep.run import begin, end


@dataclass(frozen=True, kw_only=True)
class SessionWork:
    """Measures a session; see `sixfold.distributed.tasks.Work`. Runs in the launcher."""

    config: SweepDelayConfig
    plans: Mapping[str, SessionPlan]  # the session of each member, by name

    def __call__(self, assignment: Assignment) -> dict[str, Any]:
        """Run all jobs in a session of its own."""
        return measure_session(
            self.plans[assignment.name],
            job_kinds(self.config),
            repeats=self.config.delay.repeats,
            conf=self.config.cluster.spark_conf,
            report=lambda part: assignment.report_progress(part=part),
        )


def sweep_delay(config: SweepDelayConfig, *, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Measure what Spark adds to jobs of many sizes, from its own events, and fit the laws.

    Returns what `result.json` holds. A `UserError` if the settings do not fit or there is no Spark,
    a `RunError` if a session failed; those that are done are kept.
    """
    on_event = on_event or (lambda _: None)
    with contextlib.ExitStack() as stack:
        config, run = begin(config, "delay", config.problems(), stack, on_event)
        if run.finished is not None:
            return run.finished
        plans = {_name(plan): plan for plan in sessions(config.cluster)}
        _check_spark(list(plans.values()))
        members = [
            Task(
                name=name,
                settings={
                    "task": "delay",
                    "delay": {
                        k: v for k, v in as_json(config)["delay"].items() if k != "bootstrap"
                    },
                    "session": dataclasses.asdict(plan),
                    "spark_conf": list(config.cluster.spark_conf),
                },
            )
            for name, plan in plans.items()
        ]
        run.claim()
        outcome = run_job(
            run.directory.path,
            members,
            SessionWork(config=config, plans=plans),
            open_engine("inline"),
            workers=1,
            on_event=on_event,
        )
        done = [outcome.results[name] for name in plans if name in outcome.results]
        figures = dataclasses.asdict(delay_result(done, config.delay.bootstrap))
        return end(config, run, figures, outcome, write_page)


def _check_spark(plans: Sequence[SessionPlan]) -> None:
    """Find out in seconds, before anything is written, whether there is a Spark to be measured."""
    from sixfold.distributed.engines.spark_master import check_java, parse_master
    from sixfold.distributed.engines.spark_reach import reach

    problems = list(check_java(os.environ))
    if importlib.util.find_spec("pyspark") is None:
        problems.insert(0, "Spark's delays need pyspark: pip install 'sixfold[spark]'")
    masters = dict.fromkeys(plan.master for plan in plans)
    problems += problems_of(*(lambda url=url: reach(parse_master(url)) for url in masters))
    raise_problems(problems)


def _name(plan: SessionPlan) -> str:
    workers = "" if plan.workers is None else f", {plan.workers} workers"
    return f"{plan.master}{workers}"
