"""Callbacks: objects of the user's that watch a training and may act on it.

A callback has any of the methods `on_start`, `on_step`, `on_epoch` and `on_end`, each called with a
`Moment` on rank 0, where all ranks hold the same weights: after every step with `sync` and
`model_parallel`, after every merge with `local_sgd` and `hogwild`. What a method returns, an action
or a list of them, is done by all ranks alike. Actions that follow from the moment alone keep the
guarantee: the same bits for any number of workers. A callback's own memory is not in checkpoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sixfold.core.errors import RunError, UserError

EVENTS = ("on_start", "on_step", "on_epoch", "on_end")


@dataclass(frozen=True)
class Stop:
    """Make no further step; the training is evaluated and saved as at its end."""

    reason: str = ""


@dataclass(frozen=True)
class SetRate:
    """From the next step on, multiply the schedule's learning rate by this."""

    factor: float


@dataclass(frozen=True)
class Log:
    """Write a value to `metrics.jsonl`, in a line with the step and `logged`."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a callback is told."""

    step: int  # steps done
    total_steps: int
    epoch: float
    lr: float  # of the last step
    loss: float  # of the last step, mean over its images; NaN before the first
    accuracy: float  # likewise
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Of the evaluation on the validation part after this step, if there was one."""


class Callbacks:
    """The callbacks of a training, on rank 0, each a name as `--callback` has it.

    A `UserError` if one cannot be found or made, or has none of the methods.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._named = [(name, make_callback(name)) for name in names]

    def call(self, event: str, moment: Moment) -> list[list[Any]]:
        """Call a method of all callbacks; their actions as plain data, in order.

        A `RunError` if a method fails, or returns what is no action.
        """
        found: list[list[Any]] = []
        for name, callback in self._named:
            method = getattr(callback, event, None)
            if method is None:
                continue
            try:
                answer = method(moment)
            except Exception as error:
                kind = type(error).__name__
                raise RunError(f"--callback {name}: {event} raised {kind}: {error}") from error
            actions = answer if isinstance(answer, list | tuple) else [answer]
            found += [_plain(name, event, action) for action in actions if action is not None]
        return found


def _plain(name: str, event: str, action: Any) -> list[Any]:
    if isinstance(action, Stop):
        return ["stop", str(action.reason)]
    if isinstance(action, SetRate) and 0 <= float(action.factor) < float("inf"):
        return ["rate", float(action.factor)]
    if isinstance(action, Log):
        return ["log", str(action.name), float(action.value)]
    raise RunError(
        f"--callback {name}: {event} returned {action!r}: expected None, sixfold.Stop, "
        "sixfold.SetRate with a factor of at least 0, sixfold.Log, or a list of them"
    )


def make_callback(name: str) -> Any:
    """The object that a name means; a `UserError` if there is none, or it has no method."""
    from sixfold.models.objects import open_object

    found = open_object(name, "--callback")
    made = isinstance(found, type) or not any(hasattr(found, event) for event in EVENTS)
    if made and callable(found):
        try:
            found = found()
        except Exception as error:
            methods = "" if isinstance(found, type) else f" (a callback has {', '.join(EVENTS)})"
            raise UserError(
                f"--callback {name}: making it raised {type(error).__name__}: {error}{methods}"
            ) from error
    if not any(hasattr(found, event) for event in EVENTS):
        raise UserError(
            f"--callback {name}: a {type(found).__name__} has none of the methods "
            f"{', '.join(EVENTS)}"
        )
    return found
