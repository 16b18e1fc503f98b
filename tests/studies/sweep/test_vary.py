"""Reading what is varied, and the settings that follow."""

import pytest

from sixfold import configure
from sixfold.core.errors import UserError
from sixfold.core.settings import build_tree
from sixfold.studies.sweep.vary import combinations, parse_vary
from sixfold.training.config import TrainConfig


def test_every_combination_has_its_settings() -> None:
    base = configure(model="slide", model_args="maps=8,kernel=3", epochs=2.0)
    varied = parse_vary(["batch-size=10,20", "model.kernel=5,7", "strategy=sync,hogwild"])
    found = combinations(base, varied)
    assert len(found) == 8
    assert found[0].name == "batch_size=10 model.kernel=5 strategy=sync"
    assert [one.config.training.batch_size for one in found] == [10] * 4 + [20] * 4
    assert found[3].config.model.model_args == "maps=8,kernel=7"
    assert found[3].config.strategy.strategy == "hogwild"
    assert all(one.config.training.epochs == 2.0 for one in found)


def test_nothing_varied_is_one_combination() -> None:
    (only,) = combinations(configure(), [])
    assert (only.name, only.config) == ("as given", configure())


def test_steps_and_epochs_take_each_others_place() -> None:
    (first, _) = combinations(configure(epochs=3.0), parse_vary(["steps=5,6"]))
    assert (first.config.training.steps, first.config.training.epochs) == (5, None)


def test_values_with_commas_are_divided_by_bars() -> None:
    (varied,) = parse_vary(["grid=rows=2,cols=2|cout=4"])
    assert varied.values == ("rows=2,cols=2", "cout=4")
    (varied,) = parse_vary(["deterministic=true,no,true"])
    assert varied.values == (True, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("batch_sizes=1", "did you mean batch_size"),
        ("batch_size", "expected NAME=V1,V2"),
        ("batch_size=", "expected NAME=V1,V2"),
        ("batch_size=1,x", "'x' of batch_size: expected a whole number"),
        ("out=a,b", "out is no setting"),
        ("model.=3", "is no name of an argument"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, told: str) -> None:
    with pytest.raises(UserError, match="(?s)" + told.replace(".", r"\.")):
        parse_vary([text])


def test_all_problems_come_at_once() -> None:
    with pytest.raises(UserError) as caught:
        parse_vary(["lr=a", "nothing=1", "seed=0", "seed=1"])
    assert len(caught.value.problems) == 3


def test_settings_that_a_strategy_or_an_engine_does_not_take_are_put_back() -> None:
    base = build_tree(
        TrainConfig,
        {"grid": "rows=2", "servers": 2, "local_steps": 4, "engine": "spark", "workers": 2}
        | {"master": "local[2]"},
    )
    found = combinations(
        base,
        parse_vary(["strategy=sync,model_parallel,param_server,local_sgd", "engine=local,spark"]),
    )
    for one in found:
        strategy = one.values["strategy"]
        assert one.config.strategy.grid == ("rows=2" if strategy == "model_parallel" else "")
        assert one.config.strategy.servers == (2 if strategy == "param_server" else 1)
        assert one.config.local_sgd.local_steps == (4 if strategy == "local_sgd" else 16)
        assert one.config.engine.master == ("local[2]" if one.values["engine"] == "spark" else None)
    (kept,) = combinations(base, [])
    assert kept.config == base
