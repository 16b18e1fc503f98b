"""Names and arguments of update rules, and the checks of them that need no torch."""

from typing import Any

import pytest

from sixfold.core.errors import UserError
from sixfold.core.settings import build_tree
from sixfold.training.config import OptimizerConfig, TrainConfig
from sixfold.training.run import training_problems
from sixfold.training.step.optimizer import argument_problems
from sixfold.training.step.rules import parse_optimizer_args, rule_problems
from sixfold.training.validate import optimizer_problems


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("adamm", "", "did you mean"),
        ("AdamW", "", "did you mean adamw?"),
        ("torch.optim:LBFGS", "", "evaluates the loss several times"),
        ("torch.optim:Muon", "", "give --optimizer muon"),
        ("adamw", "lr=0.1", "--optimizer-args lr: give --lr"),
        ("adamw", "weight_decay=0.1", "give --weight-decay"),
        ("sgd", "momentum=0.5", "give --momentum"),
        ("adam", "amsgrad=true", "--optimizer torch.optim:Adam, takes more"),
        ("muon", "iteration=3", "did you mean iterations?"),
        ("adamw", "betas", "is not NAME=VALUE"),
        ("adamw", "eps=1,eps=2", "eps is given twice"),
    ],
)
def test_wrong_rules_are_told_in_one_line(name: str, arguments: str, said: str) -> None:
    [line] = rule_problems(name, arguments)
    assert said in line


def test_arguments_are_read_with_brackets() -> None:
    read = parse_optimizer_args("betas=(0.9,0.95), eps=1e-6,fused=True,name=x")
    assert read == {"betas": (0.9, 0.95), "eps": 1e-6, "fused": True, "name": "x"}
    assert parse_optimizer_args(" ") == {}
    with pytest.raises(UserError) as caught:
        parse_optimizer_args("a,b=,c=1")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(optimizer="adam", optimizer_args="betas=(0.9,0.95),eps=1e-6"),
        OptimizerConfig(optimizer="muon", optimizer_args="iterations=3,nesterov=false"),
        OptimizerConfig(optimizer="lars", optimizer_args="trust=0.01"),
    ],
)
def test_arguments_of_our_own_rules_are_tried(config: OptimizerConfig) -> None:
    assert argument_problems(config) == []


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(optimizer="adam", optimizer_args="betas=0.9"),
        OptimizerConfig(optimizer="muon", optimizer_args="momentum=much"),
        OptimizerConfig(optimizer="lars", optimizer_args="trust=(1,2)"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(config: OptimizerConfig) -> None:
    [line] = argument_problems(config)
    assert "refuses" in line


def test_nesterov_belongs_to_sgd_with_momentum() -> None:
    assert optimizer_problems(OptimizerConfig(nesterov=True)) == []
    for config in (
        OptimizerConfig(nesterov=True, optimizer="adam"),
        OptimizerConfig(nesterov=True, momentum=0.0),
    ):
        assert len(optimizer_problems(config)) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "param_server"}, "--optimizer muon: not with --strategy param_server"),
        ({"strategy": "model_parallel", "workers": 2}, "not with --strategy model_parallel"),
        ({"mask": "m"}, "not with --mask"),
        ({"shared": "m"}, "not with --shared"),
    ],
)
def test_what_whole_tensors_do_not_go_with(settings: dict[str, Any], said: str) -> None:
    assert any(
        said in line
        for line in training_problems(build_tree(TrainConfig, {"optimizer": "muon", **settings}))
    )


def test_whole_tensors_go_with_a_grid_of_the_batch_alone() -> None:
    settings: dict[str, Any] = {"strategy": "model_parallel", "workers": 2, "grid": "batch=2"}
    assert training_problems(build_tree(TrainConfig, {"optimizer": "muon", **settings})) == []
