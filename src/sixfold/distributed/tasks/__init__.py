"""Jobs: many members, some after others, spread over an engine's workers, resumable.

>>> from pathlib import Path
>>> from tempfile import mkdtemp
>>> from sixfold.distributed.engines import open_engine
>>> members = [Member(name="one", settings={"x": 1}), Member(name="two", settings={"x": 2})]
>>> def work(assignment):
...     return {"square": assignment.settings["x"] ** 2}
>>> with open_engine("inline") as engine:
...     outcome = run_job(Path(mkdtemp()), members, work, engine, workers=1)
>>> outcome.results["two"]
{'square': 4}
"""

from sixfold.distributed.tasks.assignment import Assignment, Work
from sixfold.distributed.tasks.runner import Outcome, run_job
from sixfold.distributed.tasks.schedule import makespan
from sixfold.distributed.tasks.task import Member, identities

__all__ = ["Assignment", "Member", "Outcome", "Work", "identities", "makespan", "run_job"]
