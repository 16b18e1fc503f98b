"""`sixfold train`."""

from collections.abc import Mapping
from typing import Any

from sixfold.core.console.command import ConfigCommand, ReportKind
from sixfold.core.cpu_isa import keep_to
from sixfold.core.lazy import lazily
from sixfold.training.config import TrainConfig


def _rounds(result: dict[str, Any]) -> str:
    """Of `hogwild`, whose ranks make a step each in a round."""
    return f" in {result['rounds']} rounds" if "rounds" in result else ""


def summary(result: dict[str, Any]) -> list[str]:
    """The closing lines of a training."""
    speed = result.get("train_images_per_s")
    lines = _quality(result)
    if not lines and result.get("validation_accuracy") is not None:
        lines.append(f"validation         accuracy {result['validation_accuracy']:.2%}")
    if "test_loss" in result:
        lines.append(f"test loss          {result['test_loss']:.4f}")
    lines += [
        *_beside(result),
        f"steps, epochs      {result['steps']}{_rounds(result)}, {result['epochs']:g}",
    ]
    if speed is not None:
        lines.append(
            f"training           {speed:,.0f} images/s on {result['workers']} workers "
            f"({result['engine']}, {result['strategy']})"
        )
    lines += [
        f"wall time          {result['wall_s']:.1f} s, start-up {result['startup_s']:.1f} s of it",
        f"weights            sha256 {result['weights_sha256']}",
    ]
    if "stopped_by" in result:
        lines.append(f"stopped by         {_stopped(result)}")
    if "weights_step" in result:
        lines.append(f"weights are of     step {result['weights_step']}, the best evaluation")
    if result.get("averaged_weights"):
        lines.append(f"they are averages  the raw ones are in {result['raw_weights']}")
    if "plan" in result:
        lines.append(f"plan               {_planned(result['plan'])}")
    if result["restarts"]:
        lines.append(f"restarts           {result['restarts']}")
    if result.get("bad_files"):
        images, told = result.get("skipped_images", 0), len(result["bad_files"])
        lines.append(f"left out           {images:,} images ({told} lines in result.json)")
    bare = [origin for origin in result.get("native_kernels", []) if origin.startswith("none")]
    if bare:
        lines.append(
            f"C kernels          not on {len(bare)} of {len(result['native_kernels'])} ranks: "
            "slower, the same bits (result.json says why)"
        )
    return [*lines, f"report             {result['report']}"]


def _quality(result: dict[str, Any]) -> list[str]:
    """How good the network is on the test part."""
    balanced = result.get("balanced_accuracy")
    more = f"   (balanced {balanced:.2%})" if balanced is not None else ""
    lines = [
        f"{title:<18} {result[name]:.2%}{more}"
        for name, title in (
            ("test_accuracy", "test accuracy"),
            ("test_subset_accuracy", "all labels right"),
            ("mean_average_precision", "mean av. precision"),
        )
        if result.get(name) is not None
    ]
    errors = [(name, result.get(f"test_{name}")) for name in ("mae", "rmse", "r2")]
    told = ", ".join(f"{name.upper()} {value:.4g}" for name, value in errors if value is not None)
    return [*lines, *([f"test errors        {told}"] if told else [])]


def _stopped(result: dict[str, Any]) -> str:
    """Why a training ended before its length."""
    reason = result["stopped_by"]
    return "--max-time (go on with --resume)" if reason == "max_time" else str(reason)


def _planned(plan: dict[str, Any]) -> str:
    """What was chosen, and what became of the prediction."""
    chosen, actual = plan["chosen"], plan["actual_step_s"]
    grid = f" {chosen['grid']}" if chosen["grid"] else ""
    ranks = f"{chosen['workers']} worker{'s' if chosen['workers'] > 1 else ''}"
    text = (
        f"chose {chosen['strategy']}{grid} on {ranks} (equal to serial {chosen['result']}), "
        f"predicted {1000 * chosen['batch_s']:.3g} ms a step"
    )
    if actual is None:
        return text + "; too few steps to compare"
    return text + f", took {1000 * actual:.3g} ms ({plan['error']:+.0%} predicted)"


def _beside(result: dict[str, Any]) -> list[str]:
    """How a serial run over the same images fares, and single workers, where that was asked."""
    if "serial_test_accuracy" not in result:
        return []
    workers = result.get("workers_test_accuracy", [])
    lines = [f"serial accuracy    {result['serial_test_accuracy']:.2%}   (the same images)"]
    if workers:
        lines.append(f"single workers     {min(workers):.2%} to {max(workers):.2%}")
    return lines


class _TrainCommand(ConfigCommand):
    """`--engine inline` computes in this process, which has not loaded torch yet."""

    def read(self, values: dict[str, Any], problems: list[str]) -> Any:
        config: TrainConfig = super().read(values, problems)
        if config.engine.engine == "inline":
            keep_to(config.compute.cpu_isa)
        return config


COMMAND = _TrainCommand(
    config=TrainConfig,
    function="sixfold.api:train",
    summary=summary,
)
options, run = COMMAND.options, COMMAND.run

REPORTS = (
    ReportKind(
        noun="a training",
        sections=("training", "model", "data"),
        write=lambda run, config, _: lazily("sixfold.training.report:write_report")(
            run, images=images_of(config)
        ),
        unfinished=True,
    ),
)


def images_of(config: Mapping[str, Any]) -> Any:
    """A run's test images, or None where its data can no longer be opened, or lie at a URL."""
    from sixfold.core.errors import SixfoldError
    from sixfold.core.html.pictures import stretched
    from sixfold.data import open_data, resolve
    from sixfold.data.config import DataConfig
    from sixfold.data.paths import is_url

    try:
        if is_url(config["data"]["data"]):  # a page needs no connection to wherever a file says
            return None
        test = open_data(resolve(DataConfig(**config["data"]))).test
        if test.dtype == "uint8":
            return test.images
        return lambda indices: stretched(test.images(indices))
    except (SixfoldError, KeyError, TypeError):
        return None
