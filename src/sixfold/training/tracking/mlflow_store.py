"""MLflow: a run of a tracking server or of a local store, through MLflow's client.

Where it goes is for MLflow's own settings to say: `MLFLOW_TRACKING_URI` (or
`mlflow.set_tracking_uri`), `MLFLOW_EXPERIMENT_NAME` or `MLFLOW_EXPERIMENT_ID`.
"""

import contextlib
import logging
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

# A server that is gone is noticed in a minute, not in ten; the training tries again by itself.
# MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from sixfold.training.tracking.mlflow_model import save_model
from sixfold.training.tracking.tracker import Point

MODEL = "model"  # folder of the network among a run's artifacts
VALUES = 1000  # MLflow's limit of metrics in a request
PARAMETERS = 100  # of parameters, or tags
LENGTH = 500  # of a parameter's or tag's text: the least limit of the servers in use
Item = TypeVar("Item")
ENDS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MlflowRun:
    """A training as MLflow has it; goes on with `run_id` if there is such a run."""

    def __init__(self, directory: Path, run_id: str) -> None:
        # It says which tables it makes in a new database, into the middle of a progress bar.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self._client = MlflowClient()
        if run_id and self._has(run_id):
            self.run_id = run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            self.run_id = self._create(directory)

    def table(self, name: str, values: Mapping[str, Any]) -> None:
        """Settings as parameters, a result's texts as tags."""
        texts = {key: str(value)[:LENGTH] for key, value in values.items()}
        if name != "settings":
            self._tag({f"sixfold.{key}": text for key, text in texts.items()})
            return
        known = self._client.get_run(self.run_id).data.params
        new = [Param(key, text) for key, text in texts.items() if key not in known]
        for batch in _batches(new, PARAMETERS):
            self._client.log_batch(self.run_id, params=batch)
        # MLflow's parameters never change.
        changed = {k: text for k, text in texts.items() if known.get(k, text) != text}
        if changed:
            told = ", ".join(f"{key}: {known[key]} -> {text}" for key, text in changed.items())
            self._tag({"sixfold.changed_settings": told[:LENGTH]})

    def points(self, points: Sequence[Point]) -> None:
        """Metrics; the step is MLflow's step."""
        metrics = [
            Metric(_key(point.name), point.value, int(point.time * 1000), point.step)
            for point in points
        ]
        for batch in _batches(metrics, VALUES):
            self._client.log_batch(self.run_id, metrics=batch)

    def file(self, path: Path) -> None:
        """An artifact."""
        self._client.log_artifact(self.run_id, str(path))

    def model(self, directory: Path) -> None:
        """The network as an MLflow model, `runs:/RUN_ID/model`."""
        with tempfile.TemporaryDirectory(prefix="sixfold-") as scratch:
            folder = Path(scratch) / MODEL
            save_model(directory, folder)
            self._client.log_artifacts(self.run_id, str(folder), artifact_path=MODEL)

    def close(self, status: str) -> None:
        """Say how the training ended."""
        if status in ENDS:
            self._client.set_terminated(self.run_id, ENDS[status])

    def _tag(self, tags: Mapping[str, str]) -> None:
        for batch in _batches([RunTag(key, text) for key, text in tags.items()], PARAMETERS):
            self._client.log_batch(self.run_id, tags=batch)

    def _has(self, run_id: str) -> bool:
        """Whether the store has the run; another one than last time has not."""
        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        is_active: bool = found.info.lifecycle_stage == "active"
        return is_active

    def _create(self, directory: Path) -> str:
        tags = {"mlflow.source.name": "sixfold train", "sixfold.run_directory": str(directory)}
        made = self._client.create_run(self._experiment(), tags=tags, run_name=directory.name)
        run_id: str = made.info.run_id
        return run_id

    def _experiment(self) -> str:
        """Id of the experiment that MLflow's settings name; 0 is its default."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name:
            return os.environ.get("MLFLOW_EXPERIMENT_ID") or "0"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            # Another process may make it at the same moment.
            with contextlib.suppress(MlflowException):
                return str(self._client.create_experiment(name))
            found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)


def _key(name: str) -> str:
    """A metric's name of the letters that MLflow takes."""
    name = re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)[:250]
    kind, _, rest = name.partition("/")
    is_path = posixpath.normpath(name) == name
    return name if is_path else f"{kind}/{re.sub('[/.]', '_', rest)}"


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def open_mlflow(directory: Path, run_id: str) -> MlflowRun:
    """Begin a run, or go on with one."""
    return MlflowRun(directory, run_id)
