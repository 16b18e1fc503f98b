"""Classes of torch.optim over a flat vector: against the classes themselves, in pieces, resumed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sixfold.training.config import OptimizerConfig
from sixfold.training.step.optimizer import make_optimizer
from sixfold.training.step.parameter_runs import Run
from sixfold.training.step.rules import RULES, parse_optimizer_args, rule_of, state_vectors
from sixfold.training.step.torch_rules import TorchRule, torch_problems, works_on_slices

CLASSES = sorted(name for name, rule in RULES.items() if rule.torch_class)
VARIANTS = [
    *((name, "", 0.0) for name in CLASSES),
    *((name, "", 0.1) for name in CLASSES if name != "rprop"),
    ("adamw", "betas=(0.8,0.95),eps=1e-6,amsgrad=true", 0.01),
    ("rmsprop", "momentum=0.9,centered=true", 0.0),
    ("adagrad", "initial_accumulator_value=0.5,lr_decay=0.1", 0.0),
    ("torch.optim:SGD", "momentum=0.9,dampening=0.1", 0.1),
    ("torch.optim:Adam", "fused=true", 0.1),
]


def config_of(name: str, arguments: str = "", decay: float = 0.0) -> OptimizerConfig:
    return OptimizerConfig(optimizer=name, optimizer_args=arguments, weight_decay=decay, lr=0.01)


def gradients(steps: int, size: int = 50) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(steps)]


def start(size: int = 50) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def peer(config: OptimizerConfig, parameter: torch.nn.Parameter) -> Any:
    kind = getattr(torch.optim, rule_of(config.optimizer).torch_class)
    decay = {} if kind is torch.optim.Rprop else {"weight_decay": config.weight_decay}
    return kind([parameter], lr=0.01, **decay, **parse_optimizer_args(config.optimizer_args))


@pytest.mark.parametrize(("name", "arguments", "decay"), VARIANTS)
def test_a_class_has_the_bits_that_it_has_by_itself(
    name: str, arguments: str, decay: float
) -> None:
    config, weights = config_of(name, arguments, decay), start()
    parameter = torch.nn.Parameter(weights.clone())
    theirs, ours = peer(config, parameter), make_optimizer(config, weights)
    for step, gradient in enumerate(gradients(6)):
        theirs.param_groups[0]["lr"] = 0.01 / (step + 1)
        parameter.grad = gradient.clone()
        theirs.step()
        ours.update(weights, gradient, 0.01 / (step + 1))
        assert torch.equal(weights, parameter.detach())
    assert ours.updates == 6


@pytest.mark.parametrize(("name", "arguments", "decay"), VARIANTS)
def test_state_that_is_copied_into_another_goes_on_with_the_same_bits(
    name: str, arguments: str, decay: float
) -> None:
    config = config_of(name, arguments, decay)
    weights, given = start(), gradients(6)
    first = make_optimizer(config, weights)
    for gradient in given[:3]:
        first.update(weights, gradient.clone(), 0.01)
    resumed, second = weights.clone(), make_optimizer(config, weights.clone())
    assert list(second.slots) == list(first.slots)
    for key, slot in first.slots.items():
        second.slots[key].copy_(slot)
    second.updates = first.updates
    for gradient in given[3:]:
        first.update(weights, gradient.clone(), 0.01)
        second.update(resumed, gradient.clone(), 0.01)
    assert torch.equal(weights, resumed)
    assert all(torch.equal(first.slots[key], second.slots[key]) for key in first.slots)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_of_the_table_work_on_slices_and_keep_so_many_vectors(name: str) -> None:
    config = config_of(name)
    assert works_on_slices(config)
    assert torch_problems(config) == []
    assert len(make_optimizer(config, start()).slots) == state_vectors(config)


@pytest.mark.parametrize("name", CLASSES)
def test_weights_and_state_that_moved_elsewhere_are_followed(name: str) -> None:
    config, weights = config_of(name), start()
    ours, kept = make_optimizer(config, weights), start()
    plain = make_optimizer(config, kept)
    for step, gradient in enumerate(gradients(4)):
        if step == 2:  # as into memory that ranks share
            weights = weights.clone()
            ours.slots.update({key: slot.clone() for key, slot in ours.slots.items()})
        ours.update(weights, gradient.clone(), 0.01)
        plain.update(kept, gradient.clone(), 0.01)
    assert torch.equal(weights, kept)
    assert all(torch.equal(ours.slots[key], plain.slots[key]) for key in plain.slots)


@pytest.mark.parametrize("name", [*CLASSES, "sgd", "adam"])
def test_runs_have_their_own_rates_and_decays_as_groups_of_torch(name: str) -> None:
    config, weights = config_of(name, decay=0.0 if name == "rprop" else 0.1), start()
    decay = config.weight_decay
    runs = [
        Run(start=0, stop=20, lr_factor=1.0, weight_decay=decay),
        Run(start=20, stop=50, lr_factor=0.1, weight_decay=0.0),
    ]
    ours = make_optimizer(config, weights, runs)
    parts = [torch.nn.Parameter(start()[run.start : run.stop].clone()) for run in runs]
    kind = getattr(
        torch.optim, {"sgd": "SGD", "adam": "Adam"}.get(name, "") or rule_of(name).torch_class
    )
    extra = {"momentum": 0.9} if name == "sgd" else {}
    groups: list[dict[str, Any]] = [
        {"params": [part]} | ({} if name == "rprop" else {"weight_decay": run.weight_decay})
        for part, run in zip(parts, runs, strict=True)
    ]
    theirs = kind(groups, lr=0.01, **extra)
    for step, gradient in enumerate(gradients(5)):
        for part, run, group in zip(parts, runs, theirs.param_groups, strict=True):
            group["lr"] = 0.01 * (step + 1) * run.lr_factor
            part.grad = gradient[run.start : run.stop].clone()
        theirs.step()
        ours.update(weights, gradient, 0.01 * (step + 1))
    assert (weights - torch.cat([part.detach() for part in parts])).abs().max() < 1e-12


def test_a_slice_without_weights_counts_its_updates() -> None:
    ours = make_optimizer(config_of("nadam"), torch.zeros(0))
    ours.update(torch.zeros(0), torch.zeros(0), 0.1)
    assert ours.updates == 1


class Normalised(torch.optim.Optimizer):
    """Not element by element: the step has the length of the learning rate."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(
                    parameter.grad / (parameter.grad.norm() + 1), alpha=-group["lr"]
                )


class Signed(Normalised):
    """Element by element."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad.sign(), alpha=-group["lr"])


def test_a_class_of_the_users_own_is_taken_if_it_works_element_by_element() -> None:
    place = "tests.training.step.test_torch_rules"
    assert torch_problems(config_of(f"{place}:Signed")) == []
    [line] = torch_problems(config_of(f"{place}:Normalised"))
    assert "does not work element by element" in line
    [line] = torch_problems(config_of(f"{place}:start"))
    assert "is no subclass of torch.optim.Optimizer" in line
    rule = make_optimizer(config_of(f"{place}:Signed"), weights := torch.zeros(4))
    assert isinstance(rule, TorchRule)
    rule.update(weights, torch.tensor([1.0, -2.0, 3.0, 0.0]), 0.5)
    assert weights.tolist() == [-0.5, 0.5, -0.5, 0.0]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("torch.optim:RMSProp", "", "did you mean RMSprop"),
        ("adamw", "beta=0.9", "did you mean betas"),
        ("adamw", "betas=(0.9,2)", "AdamW refuses: Invalid beta"),
        ("rprop", "", "--weight-decay 0.5: Rprop has none"),
    ],
)
def test_what_a_class_does_not_take_is_refused_in_one_line(
    name: str, arguments: str, said: str
) -> None:
    [line] = torch_problems(config_of(name, arguments, 0.5 if name == "rprop" else 0.0))
    assert said in line
