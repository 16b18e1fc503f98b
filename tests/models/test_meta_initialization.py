"""Networks without memory: any part of their initial values is that of the whole, bit for bit."""

import resource
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.marks import some
from torch import nn

from sixfold import models
from sixfold.models import meta_initialization as module
from sixfold.models.config import ModelConfig
from sixfold.models.meta_initialization import Cut, MetaModel, build_on_meta, initial_parts

SIDES = {"lenet5": 28, "alexnet": 67, "cells": 128}


def settings_of(name: str) -> dict[str, Any]:
    side = SIDES.get(name, 32)
    return {"shape": (3, side, side), "classes": 10, "seed": 5}


def thirds(shape: tuple[int, ...]) -> Cut:
    return shape, tuple((length // 3, length - length // 4) for length in shape)


@pytest.mark.parametrize("name", some(models.names(), 3))
def test_parts_of_the_zoo_are_those_of_the_built_network(name: str) -> None:
    config, more = ModelConfig(model=name), settings_of(name)
    whole = models.build(config, **more).state_dict()
    found = build_on_meta(config, **more)
    assert found.fills is not None
    assert {tensor.device.type for tensor in found.network.state_dict().values()} == {"meta"}
    cuts = {key: thirds(tuple(value.shape)) for key, value in whole.items()}
    for key, value in initial_parts(found, config, cuts, **more).items():
        assert torch.equal(value, module.cut_out(whole[key], cuts[key])), key


@settings(derandomize=True)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 40),
    chunk=st.integers(1, 400),
    rule=st.sampled_from([nn.init.normal_, nn.init.uniform_]),
)
def test_chunks_draw_what_one_call_draws(
    rows: int, columns: int, chunk: int, rule: Callable[..., torch.Tensor]
) -> None:
    torch.manual_seed(3)
    whole, after = rule(torch.empty(rows, columns)), torch.rand(2)
    name = "normal_" if rule is nn.init.normal_ else "uniform_"
    fill = module.Fill(0, (rows, columns), name, (0.0, 1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_ELEMENTS", chunk)
        torch.manual_seed(3)
        chunks = [values.clone() for _, values in module._chunks(fill)]
    assert torch.equal(torch.cat(chunks), whole.flatten())
    assert torch.equal(torch.rand(2), after)


def by_orthogonal(network: nn.Module) -> None:
    nn.init.orthogonal_(network[0].weight)  # type: ignore[index]


def by_scaling(network: nn.Module) -> None:
    with torch.no_grad():
        network[0].weight.mul_(0.5).add_(1)  # type: ignore[index]


def by_copying(network: nn.Module) -> None:
    with torch.no_grad():
        network[0].weight.copy_(torch.rand(5, 7))  # type: ignore[index]


def by_rows(network: nn.Module) -> None:
    with torch.no_grad():
        network[0].weight[1].zero_()  # type: ignore[index]


def by_truncating(network: nn.Module) -> None:
    nn.init.trunc_normal_(network[0].weight)  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "recorded"),
    [
        (by_scaling, True),
        (by_orthogonal, False),
        (by_copying, False),
        (by_rows, False),
        (by_truncating, False),
    ],
)
def test_what_the_record_cannot_tell_is_built_whole(
    change: Callable[[nn.Module], None],
    recorded: bool,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def factory() -> nn.Module:
        network = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 2))
        change(network)
        return network

    class Chosen:
        @staticmethod
        def make() -> nn.Module:
            return factory()

    monkeypatch.setattr(module, "model_factory", lambda *_, **__: Chosen)
    monkeypatch.setattr(
        sys.modules["sixfold.models.building"], "model_factory", lambda *_, **__: Chosen
    )
    config, more = ModelConfig(model="own"), settings_of("own")
    found = build_on_meta(config, **more)
    assert (found.fills is not None) == recorded
    whole = models.build(config, **more).state_dict()
    cuts = {key: thirds(tuple(value.shape)) for key, value in whole.items()}
    for key, value in initial_parts(found, config, cuts, **more).items():
        assert torch.equal(value, module.cut_out(whole[key], cuts[key])), key


def test_a_part_of_a_large_network_takes_little_memory() -> None:
    fill = module.Fill(0, (200_000, 400), "uniform_", (0.0, 1.0))  # 320 MB
    network = nn.Linear(400, 200_000, device="meta")
    found = MetaModel(network, (module.Fill(module._storage(network.weight), *_of(fill)),))
    cuts: dict[str, Cut] = {"weight": ((200_000, 400), ((199_000, 199_100), (0, 400)))}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    part = initial_parts(found, ModelConfig(), cuts, **settings_of("own"))["weight"]
    assert part.shape == (100, 400)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def _of(fill: module.Fill) -> tuple[tuple[int, ...], str, tuple[Any, ...]]:
    return fill.shape, fill.operation, fill.arguments
