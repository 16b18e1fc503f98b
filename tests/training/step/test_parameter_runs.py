"""Settings of single parameters: patterns, and the runs that they cut the flat weights into."""

import itertools
from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sixfold.core.errors import UserError
from sixfold.training.config import OptimizerConfig
from sixfold.training.step.flat import FlatState
from sixfold.training.step.groups import group_problems
from sixfold.training.step.optimizer import make_optimizer, whole_optimizer
from sixfold.training.step.parameter_runs import (
    Run,
    group_settings,
    joined,
    parameter_runs,
    runs_within,
)


class Net(nn.Module):
    """A stem, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def test_patterns_mean_parameters_and_modules_and_the_last_decides() -> None:
    config = OptimizerConfig(
        lr_group=("head=10", "head.1.*=3", "*.bias=2"), weight_decay_group=("stem=0.5",)
    )
    found = group_settings(config, Net())
    assert {name: factor for name, (factor, _) in found.items()} == {
        "stem.weight": 1,
        "stem.bias": 2,
        "norm.weight": 1,
        "norm.bias": 2,
        "head.0.weight": 10,
        "head.0.bias": 2,
        "head.1.weight": 3,
        "head.1.bias": 2,
    }
    assert {name for name, (_, decay) in found.items() if decay} == {"stem.weight", "stem.bias"}


@pytest.mark.parametrize(
    ("words", "spared"),
    [
        ("norms", {"norm.weight", "norm.bias"}),
        ("biases", {"stem.bias", "norm.bias", "head.0.bias", "head.1.bias"}),
        ("norms,biases", {"norm.weight", "norm.bias", "stem.bias", "head.0.bias", "head.1.bias"}),
    ],
)
def test_norms_and_biases_are_spared(words: str, spared: set[str]) -> None:
    found = group_settings(OptimizerConfig(no_decay=words, weight_decay=0.1), Net())
    assert {name for name, (_, decay) in found.items() if decay == 0} == spared
    assert {decay for name, (_, decay) in found.items() if name not in spared} == {0.1}


def test_a_pattern_decides_over_no_decay() -> None:
    config = OptimizerConfig(
        no_decay="norms", weight_decay=0.1, weight_decay_group=("norm.bias=0.3",)
    )
    found = group_settings(config, Net())
    assert (found["norm.weight"][1], found["norm.bias"][1]) == (0, 0.3)


def test_patterns_that_match_nothing_are_all_told_with_near_names() -> None:
    config = OptimizerConfig(lr_group=("haed.*=10",), weight_decay_group=("stm=1", "head=1"))
    with pytest.raises(UserError) as caught:
        group_settings(config, Net())
    first, second = caught.value.problems
    assert "--lr-group haed.*=10: matches no trainable parameter: did you mean head" in first
    assert "--weight-decay-group stm=1" in second
    assert "stem" in second


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(lr_group=("head",)),
        OptimizerConfig(lr_group=("head=-1",)),
        OptimizerConfig(weight_decay_group=("head=x",)),
        OptimizerConfig(weight_decay_group=("=1",)),
        OptimizerConfig(lr_group=("head=inf",)),
        OptimizerConfig(no_decay="bias"),
    ],
)
def test_malformed_groups_are_told_in_one_line(config: OptimizerConfig) -> None:
    assert len(group_problems(config)) == 1


VALUES = st.sampled_from([0.0, 0.5, 1.0, 2.0])
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@given(SIZES, st.data())
def test_runs_cover_the_vector_and_have_the_settings_of_every_parameter(
    sizes: list[int], data: st.DataObject
) -> None:
    places, length = [], 0
    for number, size in enumerate(sizes):
        places.append((str(number), length))
        length += size
    settings = {name: (data.draw(VALUES), data.draw(VALUES)) for name, _ in places}
    runs = joined(places, settings, length)
    assert [run.start for run in runs] == [0, *(run.stop for run in runs[:-1])]
    assert runs[-1].stop == length
    pairs = [(run.lr_factor, run.weight_decay) for run in runs]
    assert all(a != b for a, b in itertools.pairwise(pairs))

    def at(element: int, among: tuple[Run, ...]) -> tuple[float, float]:
        [run] = [run for run in among if run.start <= element < run.stop]
        return run.lr_factor, run.weight_decay

    for (name, start), size in zip(places, sizes, strict=True):
        assert at(start, runs) == at(start + size - 1, runs) == settings[name]
    first = data.draw(st.integers(0, length))
    last = data.draw(st.integers(first, length))
    inside = runs_within(runs, first, last)
    for element in range(first, last):
        assert at(element - first, inside) == at(element, runs)
    assert sum(run.stop - run.start for run in inside) == last - first


@given(st.lists(st.tuples(st.sampled_from(["*", "a*", "*.b", "?.w", "a.w"]), VALUES), max_size=4))
def test_the_last_pattern_decides(groups: list[tuple[str, float]]) -> None:
    model = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in ("a", "b")})
    names = ["a.weight", "b.weight"]
    config = OptimizerConfig(lr_group=tuple(f"{pattern}=7" for pattern, _ in groups))
    used = [
        (pattern, value)
        for pattern, value in groups
        if any(fnmatchcase(n, pattern) or fnmatchcase(n, pattern + ".*") for n in names)
    ]
    if len(used) < len(groups):
        with pytest.raises(UserError):
            group_settings(config, model)
        return
    config = OptimizerConfig(lr_group=tuple(f"{pattern}={value}" for pattern, value in groups))
    for name in names:
        wanted = 1.0
        for pattern, value in groups:
            if fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*"):
                wanted = value
        assert group_settings(config, model)[name][0] == wanted


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "nadam"])
def test_servers_slices_make_the_update_of_the_whole(optimizer: str) -> None:
    config = OptimizerConfig(
        optimizer=optimizer, lr_group=("head=10",), weight_decay=0.1, no_decay="norms,biases"
    )
    torch.manual_seed(0)
    state = FlatState(Net().double())
    whole, runs = whole_optimizer(config, state), parameter_runs(config, state)
    assert len(runs) > 3
    cuts = [(0, 64), (64, len(state.parameters))]
    parts = [state.parameters[slice(*cut)].clone() for cut in cuts]
    rules = [
        make_optimizer(config, part, runs_within(runs, *cut))
        for part, cut in zip(parts, cuts, strict=True)
    ]
    for step in range(3):
        gradient = torch.randn(
            len(state.parameters), generator=torch.Generator().manual_seed(step), dtype=state.dtype
        )
        for rule, part, cut in zip(rules, parts, cuts, strict=True):
            rule.update(part, gradient[slice(*cut)].clone(), 0.01)
        whole.update(state.parameters, gradient, 0.01)
    assert (state.parameters - torch.cat(parts)).abs().max() < 1e-12
