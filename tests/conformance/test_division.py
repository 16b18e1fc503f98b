"""Model parallel, in every kind of grid and on every engine: serial training up to rounding."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.conformance.test_recovery import Killer
from tests.spark_masters import EngineProcess

from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.run import train

Configure = Callable[..., TrainConfig]

TOLERANCE = 1e-10
"""What the strategy promises in float64, after five steps."""

NETWORKS: dict[str, dict[str, Any]] = {
    "slide": {"model": "slide", "data": "synthetic:100x3x16x16"},
    "lenet5": {"model": "lenet5", "data": "synthetic:100x1x20x20"},
    "cells": {"model": "cells", "data": "synthetic:20x1x80x80", "batch_size": 10},
    "resnet": {"model": "resnet20", "model_args": "depth=8", "data": "synthetic:60x3x12x12"},
    "resnet, norms of the batch": {
        "model": "resnet20",
        "model_args": "depth=8",
        "data": "synthetic:100x3x12x12",
        "batch_norm": "sync",
        "batch_size": 20,
    },
    "mobilenet": {
        "model": "mobilenet_v2",
        "model_args": "width=0.25",
        "data": "synthetic:80x3x12x12",
        "steps": 2,
    },
    "alexnet": {
        "model": "alexnet",
        "data": "synthetic:8x3x67x67",
        "batch_size": 4,
        "shards": 2,
        "steps": 2,
    },
    "vgg16": {
        "model": "vgg16",
        "model_args": "form=cifar,batch_norm=false",
        "data": "synthetic:12x3x32x32",
        "batch_size": 6,
        "steps": 2,
    },
    "augmented": {
        "model": "slide",
        "data": "synthetic:60x3x16x16",
        "augment": "crop:2,erase,mixup,cutmix",
    },
    "adam": {"model": "slide", "data": "synthetic:60x3x16x16", "optimizer": "adam", "lr": 0.001},
}
COMMON: dict[str, Any] = {"precision": "float64", "batch_size": 40, "steps": 5}

GRIDS = {
    "rows=2": 2,
    "cols=3": 3,
    "cout=2": 2,
    "cin=2": 2,
    "batch=2,rows=2": 4,
    "rows=2,cols=2": 4,
    "cout=2,cin=2": 4,
    "batch=2,rows=2,cout=2": 8,
}
Serial = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Serial:
    """The same training on one worker; computed once a network."""
    from tests.conftest import small_config

    found: dict[str, dict[str, Any]] = {}

    def run(network: str) -> dict[str, Any]:
        if network not in found:
            out = tmp_path_factory.mktemp("serial")
            result = train(small_config(out=str(out), **COMMON | NETWORKS[network]))
            found[network] = result | {"weights": load_file(out / "model.safetensors")}
        return found[network]

    return run


def divided(
    configure: Configure, folder: Path, network: str, grid: str, engine: Engine | None = None
) -> dict[str, Any]:
    settings = COMMON | NETWORKS[network] | {"workers": GRIDS[grid]}
    name = "inline" if engine is None else engine.name
    config = configure(
        out=str(folder), strategy="model_parallel", grid=grid, engine=name, **settings
    )
    return train(config, engine=engine)


def check(
    configure: Configure,
    serial: Serial,
    folder: Path,
    network: str,
    grid: str,
    engine: Engine | None = None,
) -> None:
    """Train in a grid and compare every weight, and the figures, with serial training."""
    expected = serial(network)
    found = divided(configure, folder / "run", network, grid, engine)
    weights = load_file(folder / "run" / "model.safetensors")
    assert weights.keys() == expected["weights"].keys()
    for name, value in weights.items():
        assert value.dtype == expected["weights"][name].dtype
        difference = (value - expected["weights"][name]).abs().max() if value.numel() else 0
        assert float(difference) < TOLERANCE, name
    assert abs(found["test_loss"] - expected["test_loss"]) < TOLERANCE
    for name in ("test_accuracy", "steps", "images", "parameters", "confusion"):
        assert found[name] == expected[name], name


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_inline(configure: Configure, serial: Serial, tmp_path: Path, grid: str) -> None:
    check(configure, serial, tmp_path, "slide", grid)


@pytest.mark.parametrize(
    ("network", "grid"),
    [
        pytest.param("lenet5", "cin=2", marks=pytest.mark.full),
        ("cells", "rows=2,cols=2"),
        ("resnet", "rows=2"),
        pytest.param("resnet, norms of the batch", "batch=2,rows=2", marks=pytest.mark.full),
        pytest.param("mobilenet", "cout=2", marks=pytest.mark.full),
        pytest.param("augmented", "cols=3", marks=pytest.mark.full),
        ("adam", "cout=2,cin=2"),
    ],
)
def test_every_network_inline(
    configure: Configure, serial: Serial, tmp_path: Path, network: str, grid: str
) -> None:
    check(configure, serial, tmp_path, network, grid)


@pytest.mark.parametrize(
    ("network", "grid"),
    [
        pytest.param("resnet, norms of the batch", "rows=2", marks=pytest.mark.full),
        ("lenet5", "cout=2"),
    ],
)
def test_local(
    configure: Configure,
    serial: Serial,
    tmp_path: Path,
    engine_named: Callable[[str], Engine],
    network: str,
    grid: str,
) -> None:
    check(configure, serial, tmp_path, network, grid, engine_named("local"))


@pytest.mark.full
@pytest.mark.spark
def test_spark(
    configure: Configure, serial: Serial, tmp_path: Path, spark_cluster: EngineProcess
) -> None:
    check(configure, serial, tmp_path, "resnet", "rows=2", spark_cluster)


@pytest.mark.full
@pytest.mark.parametrize(
    ("network", "grid"),
    [
        (network, grid)
        for (i, network), (j, grid) in itertools.product(enumerate(NETWORKS), enumerate(GRIDS))
        if (i + j) % 3 == 0
    ],
)
def test_every_network_in_grids_of_every_kind(
    configure: Configure, serial: Serial, tmp_path: Path, network: str, grid: str
) -> None:
    check(configure, serial, tmp_path, network, grid)


@pytest.mark.full
@pytest.mark.parametrize(
    ("network", "grid"), list(zip(NETWORKS, itertools.cycle(GRIDS), strict=False))
)
def test_every_network_and_every_grid_on_local(
    configure: Configure,
    serial: Serial,
    tmp_path: Path,
    engine_named: Callable[[str], Engine],
    network: str,
    grid: str,
) -> None:
    check(configure, serial, tmp_path, network, grid, engine_named("local"))


@pytest.mark.parametrize(
    ("grid", "workers"), [("rows=2", 2), pytest.param("cout=2,cin=2", 4, marks=pytest.mark.full)]
)
def test_the_batch_axis_alters_no_bit(
    configure: Configure, tmp_path: Path, grid: str, workers: int
) -> None:
    settings: dict[str, Any] = {"strategy": "model_parallel", "batch_size": 22, "steps": 3}
    settings |= {"model": "resnet20", "model_args": "depth=8"}
    hashes = {
        train(configure(out=str(tmp_path / grid), grid=grid, workers=count, **settings))[
            "weights_sha256"
        ]
        for grid, count in ((grid, workers), (f"batch=2,{grid}", 2 * workers))
    }
    assert len(hashes) == 1


def test_a_grid_of_the_batch_alone_is_serial_training_bit_for_bit(
    configure: Configure, tmp_path: Path
) -> None:
    expected = train(configure(out=str(tmp_path / "serial")))
    found = train(
        configure(out=str(tmp_path / "run"), strategy="model_parallel", grid="batch=3", workers=3)
    )
    assert found["weights_sha256"] == expected["weights_sha256"]


def test_the_same_grid_gives_the_same_bits_on_threads_and_processes(
    configure: Configure, tmp_path: Path, engine_named: Callable[[str], Engine]
) -> None:
    hashes = {
        divided(configure, tmp_path / name, "resnet", "rows=2", engine_named(name))[
            "weights_sha256"
        ]
        for name in ("inline", "local")
    }
    assert len(hashes) == 1


@pytest.mark.full
def test_a_killed_rank_costs_time_and_nothing_else(
    configure: Configure, tmp_path: Path, engine_named: Callable[[str], Engine]
) -> None:
    settings: dict[str, Any] = {
        "data": "synthetic:400x3x8x8",
        "batch_size": 20,
        "steps": 800,
        "checkpoint_every": 50,
        "workers": 2,
        "lr": 0.001,
        "strategy": "model_parallel",
        "grid": "rows=2",
    }
    calm = train(configure(out=str(tmp_path / "calm"), **settings))
    found = train(
        configure(out=str(tmp_path / "run"), max_restarts=1, **settings | {"engine": "local"}),
        engine=engine_named("local"),
        on_event=Killer(1),
    )
    assert found["restarts"] == 1
    assert found["weights_sha256"] == calm["weights_sha256"]
