"""`sixfold.tune`: a search over settings of training, as `sixfold.train` takes them."""

import dataclasses
import hashlib
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sixfold.api.arguments import Arguments, Given
from sixfold.api.live import shown
from sixfold.api.result import History, TrainResult, open_run
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.run_directory import typed
from sixfold.core.settings import build_tree, hints_of
from sixfold.distributed.engines import Engine
from sixfold.studies.tune.config import SearchConfig, TuneConfig, TuneRunConfig
from sixfold.studies.tune.results import Best, TrialRow, TuneRecord
from sixfold.studies.tune.run import tune as launch
from sixfold.training.config import TrainConfig


class TuneResult(Mapping[str, Any]):
    """A finished search; every field of `result.json` is an attribute and an item.

    Attributes:
        path: the directory of the search.
    """

    best: Best | None
    trials: list[TrialRow]
    metric: str
    importances: dict[str, float]
    failed: int
    steps: int
    report: str

    def __init__(self, figures: Mapping[str, Any], path: Path) -> None:
        self._record = typed(TuneRecord, figures)
        self.path = path

    def __getitem__(self, name: str) -> Any:
        return dataclasses.asdict(self._record)[name]

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in dataclasses.fields(self._record))

    def __len__(self) -> int:
        return len(dataclasses.fields(self._record))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._record, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})

    @property
    def winner(self) -> TrainResult:
        """The training of the best trial, with its network and figures."""
        if self.best is None:
            raise UserError(
                "no trial was trained to its end: go on with resume=True and another max_time"
            )
        return open_run(self.path / self.best.folder)

    @property
    def history(self) -> History:
        """A line for each trial: its settings, and what it reached at each length."""
        return History(
            {
                "trial": trial.number,
                **trial.values,
                **{f"at_step_{one.steps}": one.value for one in trial.reached},
                self.metric: trial.reached[-1].value if trial.reached else None,
                "state": trial.state,
            }
            for trial in self.trials
        )

    def figures(self) -> dict[str, Any]:
        """The charts of the report as plotly figures, by title."""
        from sixfold.studies.tune.report import search_charts

        return {chart.title: chart.figure() for chart in search_charts(self._record)}

    def __repr__(self) -> str:
        return f"<TuneResult {self.path.name}: {self._told()}>"

    def _told(self) -> str:
        if self.best is None:
            return f"{len(self.trials)} trials, none trained to its end"
        chosen = ", ".join(f"{name}={value}" for name, value in self.best.values.items())
        return f"{self.metric} {self.best.value:.4g} of {len(self.trials)} trials with {chosen}"

    def _repr_html_(self) -> str:
        link = html.escape(Path(self.report).absolute().as_uri(), quote=True)
        return f'{html.escape(self._told())}<br><a href="{link}">report</a>'


def tune(
    model: Any = None,
    data: Any = None,
    *,
    search: Mapping[str, Any] | Sequence[str] = (),
    validation: Any = None,
    test: Any = None,
    engine: str | Engine | None = None,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> TuneResult:
    """Search over settings of training; see `sixfold tune`.

    Args:
        model: a network, as `sixfold.train` takes it; or a `TuneConfig`.
        data: likewise.
        search: for each setting its values as a list, or what it may be as text:
            `{"lr": "log:1e-4:1e-1", "optimizer": ["sgd", "adamw"]}`.
        validation: data by which trials are judged, or the share of the training images.
        test: data to report on, as for `sixfold.train`; nothing is chosen by it.
        engine: "inline", "local" or "spark", or an open engine: where trials are trained.
        on_event: called with progress, in place of the live display.
        quiet: whether to show nothing.
        callbacks: of each training, as for `sixfold.train`.
        **options: those of `sixfold tune`, with underscores: `trials=30`, `pruner="hyperband"`,
            and of `sixfold train`, for all trials.

    Raises:
        UserError: with everything that is wrong; nothing is left behind.
        RunError: if no trial could be trained.

    >>> tune("lenet5", search={"lr": [0.1, 0.01], "lrate": [1, 2]}, trials=0)
    Traceback (most recent call last):
    sixfold.core.errors.UserError: --trials 0: must be at least 1
    --search 'lrate=1|2': lrate is no setting of `sixfold train` that can be varied
    """
    with shown(on_event, quiet) as tell:
        if isinstance(model, TuneConfig):
            if options or search or data is not None:
                raise UserError("options: not together with a TuneConfig, which has them")
            return _launched(model, engine if isinstance(engine, Engine) else None, tell)
        own, rest, problems = _own_options(search, options)
        if own.run.resume and not own.tune.search and own.run.out:
            return _resumed(own, rest, engine, tell)
        given = Given(
            model=model,
            data=data,
            validation=validation,
            test=test,
            engine=engine,
            callbacks=callbacks,
        )
        code = hashlib.sha256(json.dumps(own.tune.search).encode()).hexdigest()[:6]
        if own.run.out:
            rest["out"] = own.run.out
        arguments = Arguments(given, rest, problems=problems, purpose=f"tune-{code}-")
        with arguments.settled(tell) as config:
            return _launched(_whole(own, config), arguments.engine, tell)


def _own_options(
    search: Mapping[str, Any] | Sequence[str], options: Mapping[str, Any]
) -> tuple[TuneConfig, dict[str, Any], list[str]]:
    """The settings that a training does not have, those of a training, and what is wrong."""
    names = {*hints_of(SearchConfig), *hints_of(TuneRunConfig), "max_time"} - {"search"}
    mine = {name: value for name, value in options.items() if name in names}
    rest = {name: value for name, value in options.items() if name not in names}
    problems: list[str] = []
    try:
        texts = _texts(search)
        resume = {name: mine.pop(name) for name in ("resume",) if name in mine}
        own = build_tree(TuneConfig, {**mine, "search": tuple(texts)})
        own = dataclasses.replace(own, run=dataclasses.replace(own.run, **resume))
    except UserError as error:
        return TuneConfig(), rest, list(error.problems)
    if texts or not own.run.resume:
        problems = own.problems()
    return own, rest, problems


def _texts(search: Any) -> list[str]:
    """What is searched as the command line has it; a `UserError` if it is nothing of the kind.

    >>> _texts({"lr": "log:0.1:1", "width": (8, 16), "nesterov": [True, False]})
    ['lr=log:0.1:1', 'width=8|16', 'nesterov=true|false']
    """
    if isinstance(search, str):
        return [search]
    if isinstance(search, (list, tuple)) and all(isinstance(each, str) for each in search):
        return [*search]
    if not isinstance(search, Mapping):
        raise UserError(
            f"search is a {type(search).__name__}: expected a mapping such as "
            '{"lr": "log:1e-4:1e-1", "optimizer": ["sgd", "adamw"]}'
        )
    found, problems = [], []
    for name, what in search.items():
        plain = what.tolist() if hasattr(what, "tolist") else what
        values = plain if isinstance(plain, (list, tuple, range)) else [plain]
        words = [_word(value) for value in values]
        if None in words or not words:
            problems.append(
                f"search[{name!r}] is {_shown(what)}: expected a list of values, or text such as "
                "log:1e-4:1e-1 or uniform:0:0.9"
            )
        else:
            found.append(f"{name}={'|'.join(filter(None, words))}")
    raise_problems(problems)
    return found


def _word(value: Any) -> str | None:
    """One value as text; None if it has none."""
    if isinstance(value, type) and value.__module__.startswith("torch.optim"):
        return f"torch.optim:{value.__name__}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) and value != "" else None


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) < 60 else f"a {type(value).__name__}"


def _whole(own: TuneConfig, config: TrainConfig) -> TuneConfig:
    """All settings of a search, from its own and those of a training."""
    shared = {
        name: getattr(config, name)
        for name in hints_of(TuneConfig)
        if name not in ("tune", "run", "selection")
    }
    selection = dataclasses.replace(
        own.selection,
        **{
            field.name: getattr(config.selection, field.name)
            for field in dataclasses.fields(config.selection)
            if field.name != "max_time"
        },
    )
    run = dataclasses.replace(own.run, out=config.run.out or own.run.out)
    return TuneConfig(tune=own.tune, run=run, selection=selection, **shared)


def _resumed(
    own: TuneConfig, rest: Mapping[str, Any], engine: str | Engine | None, on_event: OnEvent
) -> TuneResult:
    """Go on with a search whose settings its directory has."""
    usual = TuneConfig()
    changed = {
        name: value
        for section in ("tune", "selection", "run")
        for name, value in vars(getattr(own, section)).items()
        if value != getattr(getattr(usual, section), name)
    }
    if isinstance(engine, str):
        changed["engine"] = engine
    config = build_tree(TuneConfig, {**changed, **rest})
    return _launched(config, engine if isinstance(engine, Engine) else None, on_event)


def _launched(config: TuneConfig, engine: Engine | None, on_event: OnEvent) -> TuneResult:
    figures = launch(config, engine=engine, on_event=on_event)
    return TuneResult(figures, Path(figures["report"]).parent)
