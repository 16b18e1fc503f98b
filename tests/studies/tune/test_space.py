"""What is searched is read from text, and everything wrong with it is told at once."""

from __future__ import annotations

import pytest

from sixfold.core.errors import UserError
from sixfold.studies.tune.config import SearchConfig, TuneConfig, base_config
from sixfold.studies.tune.space import all_choices, corners, parse_search, trial_config
from sixfold.training.config import OptimizerConfig, StrategyConfig, TrainingConfig


def test_values_and_ranges_have_the_types_of_their_settings() -> None:
    lr, batch, optimizer, width, rate = parse_search(
        [
            "lr=log:1e-4:1e-1",
            "batch-size=uniform:16:64:16",
            "optimizer=sgd,adamw",
            "model.width=uniform:8:32",
            "model.dropout=uniform:0.0:0.5",
        ]
    )
    assert lr.span is not None
    assert batch.span is not None
    assert lr.span.value(0.012345678) == 0.0123457
    assert (lr.span.value(2.0), lr.span.value(0.0)) == (0.1, 0.0001)  # rounded into the range
    assert [choice["batch_size"] for choice in all_choices([batch])] == [16, 32, 48, 64]
    assert optimizer.values == ("sgd", "adamw")
    assert width.span is not None
    assert width.span.whole
    assert rate.span is not None
    assert not rate.span.whole
    config = trial_config(
        base_config(TuneConfig()),
        [lr, batch, width],
        {"lr": 0.5, "batch_size": 32, "model.width": 12},
    )
    assert (config.optimizer.lr, config.training.batch_size) == (0.5, 32)
    assert config.model.model_args == "width=12"


def test_values_with_commas_are_separated_by_bars() -> None:
    (augment,) = parse_search(["augment=none|crop:2,flip"])
    assert augment.values == ("none", "crop:2,flip")


def test_all_that_is_wrong_is_told_at_once() -> None:
    config = TuneConfig(
        tune=SearchConfig(
            search=(
                "lr=log:0:1",
                "lrate=1,2",
                "seed=0,1",
                "validation=0.1,0.2",
                "resize=uniform:16:32",
                "batch-size=16",
                "epochs=uniform:1",
                "momentum=0.5,x",
            ),
            metric="acuracy",
        ),
        training=TrainingConfig(batch_size=0),
    )
    text = "\n".join(config.problems())
    for part in (
        "LOW must be below HIGH and LOW above 0",
        "lrate is no setting",
        "seeds are repetitions",
        "judged on different images",
        "data are prepared before the search begins",
        "one value is no choice",
        "expected uniform:LOW:HIGH or uniform:LOW:HIGH:STEP",
        "'x' of momentum: expected a number",
        "unknown metric 'acuracy': did you mean accuracy",
        "--batch-size 0: must be at least 1",
    ):
        assert part in text, part


def test_every_value_and_end_is_checked_before_anything_is_trained() -> None:
    search = ("lr=uniform:-1:1", "optimizer=sgd,adem", "schedule=cosine,nonesuch")
    text = "\n".join(TuneConfig(tune=SearchConfig(search=search)).problems())
    for part in ("--lr -1.0: must be", "adem", "nonesuch"):
        assert part in text, part


@pytest.mark.parametrize(
    ("strategy", "search", "part"),
    [
        ("hogwild", (), "must give the same bits"),
        ("local_sgd", (), "each trial has one worker"),
        ("sync", ("workers=1,2",), "results do not depend on them"),
    ],
)
def test_what_would_not_equal_a_plain_training_is_refused(
    strategy: str, search: tuple[str, ...], part: str
) -> None:
    config = TuneConfig(
        tune=SearchConfig(search=("lr=0.1,0.2", *search)),
        strategy=StrategyConfig(strategy=strategy),
    )
    assert part in "\n".join(config.problems())


def test_corners_hold_each_value_once() -> None:
    dimensions = parse_search(["lr=0.1,0.2,0.3", "batch-size=8,16"])
    base = base_config(TuneConfig(optimizer=OptimizerConfig(momentum=0.5)))
    found = [(c.optimizer.lr, c.training.batch_size) for c in corners(base, dimensions)]
    assert found == [(0.1, 8), (0.2, 8), (0.3, 8), (0.1, 16)]
    with pytest.raises(UserError, match="given twice"):
        parse_search(["lr=0.1,0.2", "lr=0.1,0.3"])
