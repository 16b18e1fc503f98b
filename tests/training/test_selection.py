"""What evaluations decide, held to torch's plateau, and how settings of it are written."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfold.core.errors import UserError
from sixfold.core.settings import build_tree
from sixfold.training.config import TrainConfig
from sixfold.training.progress import Progress
from sixfold.training.selection import (
    early_stopping,
    judged,
    on_plateau,
    parse_target,
    quality,
    seconds,
    selection_problems,
    validation_problems,
    value_of,
)

SERIES = st.lists(st.floats(0.01, 10, allow_nan=False), min_size=1, max_size=30)


@settings(deadline=None)  # torch imports its compiler
@given(SERIES, st.integers(1, 4), st.sampled_from(["loss", "accuracy"]))
def test_a_plateau_is_that_of_torch(values: list[float], patience: int, metric: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=1.0)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs,
        mode="min" if metric == "loss" else "max",
        factor=0.5,
        patience=patience,
        eps=0.0,
    )
    progress = Progress()
    for value in values:
        peer.step(value)
        found = quality(metric, value)
        progress = on_plateau(progress, found, patience=patience, factor=0.5)
        assert progress.plateau_factor == theirs.param_groups[0]["lr"]


def after(values: list[float | None], **options: Any) -> list[Progress]:
    """What evaluations with these losses decide, one after the other."""
    config, progress, found = (
        build_tree(TrainConfig, {"validation": 0.1, **options}),
        Progress(),
        [],
    )
    for step, value in enumerate(values, start=1):
        metrics = {"loss": value, "accuracy": None if value is None else 1 - value}
        progress = judged(dataclasses.replace(progress, step=step), config, metrics, "accuracy")
        found.append(progress)
    return found


def test_training_stops_when_a_metric_has_not_improved_for_so_long() -> None:
    found = after([0.9, 0.5, 0.6, 0.5, 0.4, 0.45, 0.4], early_stopping="loss:2")
    assert [bool(progress.stopped) for progress in found] == [0, 0, 0, 1, 1, 1, 1]
    assert found[3].stopped == "early stopping: loss has not improved in 2 evaluations"


def test_training_stops_when_a_metric_is_good_enough() -> None:
    found = after([0.9, 0.5, 0.31, 0.3, 0.2], stop_at="loss=0.3")
    assert [bool(one.stopped) for one in found] == [False, False, False, True, True]
    assert found[3].stopped == "loss has reached 0.3"


@pytest.mark.parametrize("text", ["accuracy", "accuracy=", "accuracy=high", "loss=nan"])
def test_wrong_targets_are_explained(text: str) -> None:
    with pytest.raises(UserError, match=f"--stop-at {text}: expected METRIC=VALUE"):
        parse_target(text)
    with pytest.raises(UserError, match="did you mean accuracy"):
        parse_target("acuracy=0.9")


def test_the_best_is_by_the_metric_that_is_named_and_its_mode() -> None:
    assert [p.best_step for p in after([0.9, 0.5, 0.6, 0.5], best="loss")] == [1, 2, 2, 2]
    assert [p.best_step for p in after([0.9, 0.5, 0.6, 0.5])] == [1, 2, 2, 2]
    assert after([0.5], best="loss")[0].best_accuracy == -0.5
    assert value_of("loss", -0.5) == 0.5


def test_what_is_no_number_is_the_worst() -> None:
    assert [p.best_step for p in after([float("nan"), 0.9, None, 0.8], best="loss")] == [1, 2, 2, 4]


def test_a_metric_that_the_data_do_not_have_is_refused_with_those_they_have() -> None:
    with pytest.raises(UserError, match="--best r2: the data have accuracy, loss"):
        after([0.5], best="r2")


@given(SERIES)
def test_a_run_that_is_resumed_decides_as_one_that_was_not(values: list[float]) -> None:
    options: dict[str, Any] = {"early_stopping": "loss:3", "schedule": "plateau:2:0.5"}
    whole = after(list(values), **options, best="loss")
    config = build_tree(TrainConfig, {"validation": 0.1, **options, "best": "loss"})
    progress = Progress()
    for step, value in enumerate(values, start=1):
        kept = dataclasses.asdict(progress)
        progress = judged(
            Progress(**{**kept, "step": step}), config, {"loss": value, "accuracy": 0.0}, "accuracy"
        )
    assert progress == whole[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400), ("1d", 86400)],
)
def test_times_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "-3m", "0", "3x", "1 h", "h"])
def test_wrong_times_are_explained(text: str) -> None:
    with pytest.raises(UserError, match="expected a time such as 90s, 30m"):
        seconds(text)


@pytest.mark.parametrize("text", ["loss:", "loss:0", "loss:x", "los", "los:3", "3"])
def test_wrong_early_stopping_is_explained(text: str) -> None:
    with pytest.raises(UserError, match=r"whole number of evaluations|did you mean loss"):
        early_stopping(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"best": "accurate"}, "did you mean accuracy"),
        ({"callback": ("mine",)}, "write it as package.module:factory"),
        ({"max_time": "1m", "strategy": "param_server"}, "--max-time 1m: not with --strategy"),
        ({"schedule": "plateau", "strategy": "param_server"}, "--schedule plateau: not with"),
        (
            {"early_stopping": "loss", "strategy": "local_sgd", "groups": 2},
            "--early-stopping loss: not with --groups 2",
        ),
        ({"best": "loss", "evaluate_every": 0.0}, "--evaluate-every 0"),
    ],
)
def test_what_does_not_go_together_is_one_line(options: dict[str, Any], said: str) -> None:
    [line] = selection_problems(build_tree(TrainConfig, options))
    assert said in line


def test_nothing_is_selected_without_validation_images() -> None:
    assert validation_problems(TrainConfig(), 0) == []
    for options in ({"best": "loss"}, {"final_weights": "best"}, {"schedule": "plateau"}):
        [line] = validation_problems(build_tree(TrainConfig, options), 0)
        assert "never on the test set" in line
        assert validation_problems(build_tree(TrainConfig, options), 5) == []
