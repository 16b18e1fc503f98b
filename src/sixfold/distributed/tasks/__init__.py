"""Jobs: many tasks, some after others, spread over an engine's workers, resumable.

>>> from pathlib import Path
>>> from tempfile import mkdtemp
>>> from sixfold.distributed.engines import open_engine
>>> tasks = [Task(name="one", settings={"x": 1}), Task(name="two", settings={"x": 2})]
>>> def work(assignment):
...     return {"square": assignment.settings["x"] ** 2}
>>> with open_engine("inline") as engine:
...     outcome = run_job(Path(mkdtemp()), tasks, work, engine, workers=1)
>>> outcome.results["two"]
{'square': 4}
"""

from sixfold.distributed.tasks.assignment import Assignment, Work
from sixfold.distributed.tasks.runner import Outcome, run_job
from sixfold.distributed.tasks.task import Task, cache_keys, makespan

__all__ = ["Assignment", "Outcome", "Task", "Work", "cache_keys", "makespan", "run_job"]
