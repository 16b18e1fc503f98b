"""Wrong settings of local SGD are told all at once, each with its remedy."""

from collections.abc import Callable
from typing import Any

import pytest

from sixfold.training.config import TrainConfig
from sixfold.training.strategies.local_sgd.checks import local_sgd_problems

Configure = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"aggregation": "best"}, "--validation 0.1"),
        ({"aggregation": "genetic"}, "--validation 0.1"),
        ({"local_steps": 0}, "--local-steps 0: must be at least 1"),
        ({"post_local": -1.0}, "--post-local -1.0"),
        ({"groups": 4, "workers": 3}, "--groups 4"),
        ({"swap_every": 2}, "give --groups 2 or more"),
        ({"swap_every": 0, "groups": 2, "workers": 2}, "--swap-every 0: must be at least 1"),
        ({"batch_size": 3, "workers": 4}, "each of 4 workers needs an image"),
        ({"outer_lr": 0.5}, "--outer-lr 0.5: only for --aggregation nesterov, not mean"),
        ({"aggregation": "nesterov", "outer_momentum": 1.0}, "must be at least 0 and below 1"),
        ({"aggregation": "nesterov", "outer_lr": 0.0}, "must be above 0"),
        ({"population": 9}, "only for --aggregation genetic"),
        ({"aggregation": "genetic", "validation": 0.1, "elite": 16}, "--elite 16"),
        ({"aggregation": "genetic", "validation": 0.1, "generations": -1}, "--generations -1"),
        (
            {"aggregation": "genetic", "validation": 0.1, "mutation_rate": 1.5},
            "--mutation-rate 1.5",
        ),
        ({"aggregation": "genetic", "validation": 0.1, "mutation_scale": -1.0}, "--mutation-scale"),
    ],
)
def test_each_is_told(configure: Configure, settings: dict[str, Any], told: str) -> None:
    (problem,) = configure(strategy="local_sgd", **settings).problems()
    assert told in problem


def test_right_settings_have_no_problems(configure: Configure) -> None:
    assert (
        local_sgd_problems(configure(strategy="local_sgd", workers=4, groups=2, swap_every=1)) == []
    )
    assert local_sgd_problems(configure()) == []


def test_its_options_are_refused_with_another_strategy(configure: Configure) -> None:
    found = configure(align=True, groups=2).problems()
    assert found == [
        "--align true: only for --strategy local_sgd",
        "--groups 2: only for --strategy local_sgd",
    ]
