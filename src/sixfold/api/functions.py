"""`sixfold.train` and `sixfold.lr_find`: a network, data and options as a user has them in hand."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sixfold.api.arguments import Arguments, Given
from sixfold.api.live import shown
from sixfold.api.result import TrainResult
from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.object_store import is_url
from sixfold.core.run_store import local_run
from sixfold.core.settings import hints_of
from sixfold.distributed.engines import Engine
from sixfold.training import run
from sixfold.training.config import TrainConfig, is_automatic
from sixfold.training.lr_find.config import LrFindConfig, RangeConfig
from sixfold.training.lr_find.run import lr_find as launch_lr_find


def train(
    model: Any = None,
    data: Any = None,
    *,
    validation: Any = None,
    test: Any = None,
    engine: str | Engine | None = None,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> TrainResult:
    """Train a network; the result has the figures, the history and the trained network.

    Args:
        model: a network of the zoo by name, `package.module:factory`, a class or function that
            builds the network (called as `--model` is, with what its signature names of `classes`,
            `in_channels`, ...), or an `nn.Module`, which begins with the weights it has and is
            itself not changed. All of them may be defined in a notebook. Or a `TrainConfig`.
        data: a specification such as "folder:PATH", `(images, labels)` as arrays or tensors, a
            map-style data set of torch's, a pandas or Arrow table, a Spark DataFrame, a data set of
            Hugging Face or "hf:NAME".
        validation: data to select on; or the share of the training images that is set aside.
        test: data to report on; or the share that is set aside; False: none, all images are trained
            on. By default what the data have, else 20 %.
        engine: "inline", "local" or "spark"; or an open engine, which is left open.
        on_event: called with progress, in place of the live display.
        quiet: whether to show nothing; by default a bar is shown in notebooks and terminals.
        callbacks: objects with any of the methods `on_start`, `on_step`, `on_epoch` and `on_end`,
            each called with a `Moment`; they may return `Stop`, `SetRate` or `Log`.
        **options: those of `sixfold train`, with underscores: `batch_size=128`.

    Raises:
        UserError: with everything that is wrong with arguments, data or cluster; nothing is left
            behind.
        RunError: if the run failed; its directory keeps the last checkpoint.
        KeyboardInterrupt: after a checkpoint was saved; `resume=True` with the same `out` goes on.

    >>> train(workers=0, batchsize=3)
    Traceback (most recent call last):
    sixfold.core.errors.UserError: there is no setting 'batchsize': did you mean batch_size?
    --workers 0: must be at least 1
    """
    with shown(on_event, quiet) as tell:
        given = Given(
            model=model,
            data=data,
            validation=validation,
            test=test,
            engine=engine,
            callbacks=callbacks,
        )
        arguments = Arguments(given, options)
        with arguments.settled(tell) as config:
            # Whoever has all settings in one object, as the command line, knows its own way to say.
            is_whole = isinstance(model, TrainConfig)
            with contextlib.nullcontext() if is_whole else _resumable(config, tell):
                return _train(config, arguments.engine, tell)


def lr_find(
    model: Any = None,
    data: Any = None,
    *,
    engine: str | None = None,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Try learning rates on one short training, and suggest one; see `sixfold lr-find`.

    Args:
        model: a network, as `sixfold.train` takes it; or an `LrFindConfig`.
        data: likewise.
        engine: "inline", "local" or "spark".
        on_event: called with progress, in place of the live display.
        quiet: whether to show nothing.
        **options: `lr_from`, `lr_to`, and those of `sixfold train` for the short training.

    Raises:
        UserError: with everything that is wrong; nothing is left behind.

    >>> lr_find("lenet5", "digits", lr_from=0.0, steps=0)
    Traceback (most recent call last):
    sixfold.core.errors.UserError: --lr-from 0.0: must be above 0
    --steps 0: must be at least 1
    """
    names = {field.name for field in dataclasses.fields(RangeConfig)}
    with shown(on_event, quiet) as tell:
        if isinstance(model, LrFindConfig):
            if options or data is not None or engine is not None:
                raise UserError("options: not together with an LrFindConfig, which has them")
            return launch_lr_find(model, tell)
        rates = RangeConfig(**{name: options.pop(name) for name in names & set(options)})
        given = Given(model=model, data=data, validation=None, test=None, engine=engine)
        arguments = Arguments(given, options, problems=rates.problems(), purpose="lr-find-")
        with arguments.settled(tell) as config:
            shared = {
                name: getattr(config, name) for name in hints_of(LrFindConfig) if name != "range"
            }
            return launch_lr_find(LrFindConfig(**shared | {"range": rates}), tell)


def _train(config: TrainConfig, engine: Engine | None, on_event: OnEvent) -> TrainResult:
    planner: run.Planner | None = None
    if is_automatic(config):
        from sixfold.perf.plan.automatic import choose

        planner = choose
    result = run.train(config, engine=engine, on_event=on_event, planner=planner)
    path = local_run(result["report"].rpartition("/")[0])
    return TrainResult(result, path, config.model.model)


@contextlib.contextmanager
def _resumable(config: TrainConfig, on_event: OnEvent) -> Iterator[None]:
    """Say how a training that the user stops goes on."""
    try:
        yield
    except KeyboardInterrupt:
        out, text = config.run.out, "stopped before the first checkpoint"
        if out and (is_url(out) or any(Path(out).glob("checkpoints/step-*"))):
            text = f"stopped; the same call with resume=True and out={out!r} goes on from here"
            on_event({"kind": "note", "text": text})
        # Where in the launcher it came says nothing.
        raise KeyboardInterrupt(text) from None
