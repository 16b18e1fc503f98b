"""TensorBoard: event files in the folder `tensorboard` of the run directory.

They are written with TensorBoard's own protocol buffers, without TensorFlow, and by the calling
thread, so that an error is told where it happens.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.record_writer import RecordWriter

from sixfold.training.tracking.tracker import Point

FOLDER = "tensorboard"


class EventFile:
    """A training as TensorBoard reads it; see `sixfold.training.tracking.tracker.Tracker`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.run_id = folder.name
        # TensorBoard reads a folder's files one after the other, by name.
        now = time.time()
        name = f"events.out.tfevents.{now:017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((folder / name).open("xb"))
        try:
            self._write(event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
            self._writer.flush()
        except OSError:
            self._writer.close()
            raise

    def table(self, name: str, values: Mapping[str, Any]) -> None:
        """A page of text; settings also as hyperparameters."""
        rows = [f"| {key} | {_cell(value)} |" for key, value in values.items()]
        lines = "\n".join(["| name | value |", "|---|---|", *rows])
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[lines.encode()])
        metadata = text.create_summary_metadata(name, "")
        self._summary(summary_pb2.Summary.Value(tag=name, tensor=tensor, metadata=metadata))
        if name == "settings":
            self._hyperparameters(values)
        self._writer.flush()

    def points(self, points: Sequence[Point]) -> None:
        """Scalars."""
        for point in points:
            value = summary_pb2.Summary.Value(tag=point.name, simple_value=point.value)
            self._summary(value, step=point.step, wall_time=point.time)
        self._writer.flush()

    def file(self, path: Path) -> None:
        """Nothing: TensorBoard shows no files."""

    def model(self, directory: Path) -> None:
        """Nothing: TensorBoard has no format for networks that are to be used."""

    def close(self, status: str) -> None:
        """Write how the training ended, and close."""
        try:
            if status != "running":
                self._session_end(status)
        finally:
            self._writer.close()

    def _hyperparameters(self, values: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        start = plugin_data_pb2.SessionStartInfo(group_name=digest, start_time_secs=time.time())
        for name, value in values.items():
            entry = start.hparams[name]
            if isinstance(value, bool):
                entry.bool_value = value
            elif isinstance(value, int | float):
                entry.number_value = value
            else:
                entry.string_value = str(value)
        data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
        self._plugin(hparams.SESSION_START_INFO_TAG, data)

    def _session_end(self, status: str) -> None:
        ends = {
            "finished": api_pb2.STATUS_SUCCESS,
            "failed": api_pb2.STATUS_FAILURE,
        }
        end = plugin_data_pb2.SessionEndInfo(
            status=ends.get(status, api_pb2.STATUS_UNKNOWN), end_time_secs=time.time()
        )
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
        self._plugin(hparams.SESSION_END_INFO_TAG, data)

    def _plugin(self, tag: str, data: Any) -> None:
        data.version = hparams.PLUGIN_DATA_VERSION
        plugin = summary_pb2.SummaryMetadata.PluginData(
            plugin_name=hparams.PLUGIN_NAME, content=data.SerializeToString()
        )
        metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
        value = summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)
        self._summary(value)

    def _summary(self, value: Any, step: int = 0, wall_time: float | None = None) -> None:
        summary = summary_pb2.Summary(value=[value])
        when = time.time() if wall_time is None else wall_time
        self._write(event_pb2.Event(wall_time=when, step=step, summary=summary))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


def _cell(value: Any) -> str:
    """A value in a table of Markdown."""
    return str(value).replace("|", "\\|").replace("\n", " ")


def open_tensorboard(directory: Path, _run_id: str) -> EventFile:
    """Begin the event files of a run directory, or go on with a further one."""
    return EventFile(directory / FOLDER)
