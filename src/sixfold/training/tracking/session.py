"""The trackers of one training, in the launcher's process: ranks know nothing of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sixfold.core.events import OnEvent
from sixfold.core.run_directory import RunDirectory
from sixfold.training.tracking.config import TrackingConfig
from sixfold.training.tracking.registry import TRACKERS
from sixfold.training.tracking.sender import Sender

PATIENCE_S = 120.0  # for which the end of a training waits for a tracker that does not get on
ABORTED_PATIENCE_S = 10.0  # the same after Ctrl-C or a failure


class Tracking:
    """Sends a training to its trackers."""

    def __init__(self, config: TrackingConfig, directory: RunDirectory, on_event: OnEvent) -> None:
        self._on_event = on_event
        settings = directory.config() or {}
        self._senders = [
            Sender(name, TRACKERS[name], directory, settings, on_event) for name in config.names
        ]

    def start(self) -> None:
        """Begin to send."""
        for sender in self._senders:
            sender.start()

    def needed(self, result: Mapping[str, Any]) -> None:
        """Leave out trackers that have all of a finished run."""
        self._senders = [sender for sender in self._senders if sender.missing(result)]

    def end(self, status: str, result: Mapping[str, Any] | None = None) -> None:
        """Send what is left, and say what could not be sent."""
        patience_s = ABORTED_PATIENCE_S if result is None else PATIENCE_S
        senders, self._senders = self._senders, []
        try:
            for sender in senders:
                if line := sender.end(status, result, patience_s):
                    again = "" if result is None else "; the same command sends it again"
                    self._on_event({"kind": "note", "text": line + again})
        except KeyboardInterrupt:
            if result is None:
                raise
            text = "--track: stopped before all was sent; the same command sends the rest"
            self._on_event({"kind": "note", "text": text})


@contextmanager
def tracked(
    config: TrackingConfig, directory: RunDirectory, on_event: OnEvent
) -> Iterator[Tracking]:
    """Track a training whose directory has just been claimed; `end` it with its result."""
    tracking = Tracking(config, directory, on_event)
    tracking.start()
    try:
        yield tracking
    except KeyboardInterrupt:
        tracking.end("stopped")
        raise
    except BaseException:
        tracking.end("failed")
        raise


def send_rest(
    config: TrackingConfig,
    directory: RunDirectory,
    result: Mapping[str, Any],
    on_event: OnEvent,
) -> None:
    """Send what the trackers lack of a finished run."""
    tracking = Tracking(config, directory, on_event)
    tracking.needed(result)
    tracking.start()
    tracking.end("finished", result)
