"""A Python function for every command: options by name, as `sixfold.train` takes them."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from sixfold.api.live import shown, silent
from sixfold.api.result import TrainResult
from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.settings import build_or_tell_all, hints_of

Figures = dict[str, Any]
Run = str | PathLike[str]


def _settings(
    tree: type[Any], first: Any, options: dict[str, Any], words: dict[str, Any] | None = None
) -> Any:
    """The settings of a command: as they were given whole, or from words and options."""
    given = {name: value for name, value in (words or {}).items() if value is not None}
    if isinstance(first, tree):
        names = [name for name in (*given, *options) if given.get(name) is not first]
        if names:
            raise UserError(f"{', '.join(names)}: not together with a {tree.__name__}")
        return first
    if first is not None and words is None:
        raise UserError(f"a {type(first).__name__}: expected a {tree.__name__}, or options by name")
    # A result of `sixfold.train` stands for its run directory.
    plain = {name: getattr(value, "path", value) for name, value in given.items()}
    known = {key for section in hints_of(tree).values() for key in hints_of(section)}
    if "trust_model" in known and any(
        isinstance(one, TrainResult) and one.is_own() for one in given.values()
    ):
        plain["trust_model"] = True
    return build_or_tell_all(tree, {**plain, **options})


def _call(
    function: Callable[..., Any], config: Any, on_event: OnEvent | None, quiet: bool | None
) -> Any:
    with shown(on_event, quiet) as tell:
        return function(config, on_event=None if tell is silent else tell)


def predict(
    run: Any = None,
    data: str | None = None,
    out: Run | None = None,
    *,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    **options: Any,
) -> Figures:
    """Classify a data set with a trained network, into a Parquet file; see `sixfold predict`.

    `run` is a run directory, its weights, a result of `sixfold.train`, or a `PredictConfig`.
    """
    from sixfold.prediction.config import PredictConfig
    from sixfold.prediction.run import predict as launch

    config = _settings(PredictConfig, run, options, {"run": run, "data": data, "out": out})
    figures: Figures = _call(launch, config, on_event, quiet)
    return figures


def prepare(
    source: Any = None,
    destination: Run | None = None,
    *,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    **options: Any,
) -> Figures:
    """Turn a data set into tensor shards that load fast; see `sixfold prepare`."""
    from sixfold.data.config import PrepareConfig
    from sixfold.data.run import prepare as launch

    words = {"source": source, "destination": destination}
    figures: Figures = _call(
        launch, _settings(PrepareConfig, source, options, words), on_event, quiet
    )
    return figures


def evaluate_robustness(
    run: Any = None, *, on_event: OnEvent | None = None, quiet: bool | None = None, **options: Any
) -> Figures:
    """Tell how a network's accuracy stands up to distorted images; see `sixfold evaluate`."""
    from sixfold.prediction.robustness.config import EvaluateConfig
    from sixfold.prediction.robustness.run import evaluate_robustness as launch

    figures: Figures = _call(
        launch, _settings(EvaluateConfig, run, options, {"run": run}), on_event, quiet
    )
    return figures


def compress(
    run: Any = None, *, on_event: OnEvent | None = None, quiet: bool | None = None, **options: Any
) -> Figures:
    """Prune, share and code the weights of a trained network; see `sixfold compress`."""
    from sixfold.compression.config import CompressConfig
    from sixfold.compression.run import compress as launch

    figures: Figures = _call(
        launch, _settings(CompressConfig, run, options, {"run": run}), on_event, quiet
    )
    return figures


def export(
    run: Any = None,
    out: Run | None = None,
    *,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    **options: Any,
) -> Figures:
    """Write a trained network as ONNX, TorchScript or an ExportedProgram; see `sixfold export`.

    `run` is a run directory, its weights, a result of `sixfold.train`, or an `ExportConfig`.
    """
    from sixfold.prediction.export.config import ExportConfig
    from sixfold.prediction.export.run import export as launch

    config = _settings(ExportConfig, run, options, {"run": run, "out": out})
    figures: Figures = _call(launch, config, on_event, quiet)
    return figures


def plan(
    config: Any = None,
    *,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    **options: Any,
) -> Any:
    """Predict the time of every way to divide a training; see `sixfold plan`."""
    from sixfold.perf.plan.config import PlanConfig
    from sixfold.perf.plan.run import plan as launch

    figures: Figures = _call(launch, _settings(PlanConfig, config, options), on_event, quiet)
    return figures


def profile(
    run: Any = None, *, on_event: OnEvent | None = None, quiet: bool | None = None, **options: Any
) -> Figures:
    """Measure where the time of a training goes, or tell it of a run; see `sixfold profile`."""
    from sixfold.perf.profile.config import ProfileConfig
    from sixfold.perf.profile.run import profile as launch
    from sixfold.perf.profile.run import profile_of_run

    if isinstance(run, (str, PathLike)) or hasattr(run, "path"):
        if options:
            raise UserError(f"{', '.join(options)}: a run is only read; leave run away to measure")
        return profile_of_run(Path(getattr(run, "path", run)).expanduser().absolute())
    figures: Figures = _call(launch, _settings(ProfileConfig, run, options), on_event, quiet)
    return figures


def tickets(
    config: Any = None,
    *,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    **options: Any,
) -> Figures:
    """Search for lottery tickets; see `sixfold tickets`."""
    from sixfold.lottery.config import TicketsConfig
    from sixfold.lottery.run import tickets as launch

    figures: Figures = _call(launch, _settings(TicketsConfig, config, options), on_event, quiet)
    return figures


def lca_learn(
    config: Any = None,
    *,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    **options: Any,
) -> Figures:
    """Learn a dictionary for sparse codes of images; see `sixfold lca learn`."""
    from sixfold.lca.config import LcaLearnConfig
    from sixfold.lca.run import lca_learn as launch

    figures: Figures = _call(launch, _settings(LcaLearnConfig, config, options), on_event, quiet)
    return figures


def doctor(
    config: Any = None,
    *,
    on_event: OnEvent | None = None,
    quiet: bool | None = None,
    **options: Any,
) -> Figures:
    """Look at this host and, with `master`, at a Spark cluster; see `sixfold doctor`.

    Returns `findings` (what, state, seen, remedy) and `wrong`, how many are wrong.
    """
    from sixfold.spark.doctor.config import DoctorConfig
    from sixfold.spark.doctor.run import doctor as launch

    figures: Figures = _call(launch, _settings(DoctorConfig, config, options), on_event, quiet)
    return figures
