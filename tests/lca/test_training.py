"""Dictionaries: the same bits however the work is divided, and after a resume."""

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from tests.marks import quick
from tests.spark_masters import EngineProcess
from torch import Tensor

from sixfold.core.config import RunConfig
from sixfold.core.errors import UserError
from sixfold.distributed.config import EngineConfig
from sixfold.distributed.engines import Engine, open_engine
from sixfold.lca.config import (
    DictionaryConfig,
    DynamicsChanges,
    DynamicsConfig,
    EncodeConfig,
    InputConfig,
    LcaEncodeConfig,
    LcaLearnConfig,
    LearnConfig,
)
from sixfold.lca.dictionary import load_dictionary
from sixfold.lca.run import lca_encode, lca_learn
from sixfold.studies.report.command import rewrite_report

BASE = LcaLearnConfig(
    input=InputConfig(data="synthetic:60x3x12x12", preprocess="whiten"),
    dictionary=DictionaryConfig(atoms=10, kernel="5", stride="2"),
    dynamics=DynamicsConfig(lambda_=0.3, dt=5.0, max_steps=60),
    learn=LearnConfig(batch_size=20, steps=5, resample_dead_after=1),
    engine=EngineConfig(engine="inline", workers=1),
)


def changed(out: Path, **sections: dict[str, Any]) -> LcaLearnConfig:
    """The base settings with changes by section and field, in a run directory."""
    config = dataclasses.replace(BASE, run=RunConfig(out=str(out)))
    for name, fields in sections.items():
        section = dataclasses.replace(getattr(config, name), **fields)
        config = dataclasses.replace(config, **{name: section})
    return config


def read_codes(path: Path) -> Tensor:
    """The codes in a file as a dense tensor, (n, K, P, Q)."""
    is_parquet = path.suffix == ".parquet"
    table = parquet.read_table(path) if is_parquet else pa.ipc.open_file(path).read_all()
    shape = json.loads(table.schema.metadata[b"sixfold.lca"])["shape"]
    values = table.column("values").to_pylist()
    dtype = torch.float64 if "double" in str(table.schema.field("values").type) else torch.float32
    codes = torch.zeros(len(values), math.prod(shape), dtype=dtype)
    for row, places in enumerate(table.column("indices").to_pylist()):
        codes[row, places] = torch.tensor(values[row], dtype=dtype)
    return codes.view(len(values), *shape)


def movies(folder: Path, count: int = 4, length: int = 5) -> str:
    """Movies of a slowly drifting grating in three forms."""
    folder.mkdir()
    rows, columns = np.mgrid[:12, :12]
    for movie in range(count):
        frames = [
            np.uint8(127 + 100 * np.sin(0.7 * (columns * (movie + 1) / 2 + rows + 0.05 * frame)))
            for frame in range(length)
        ]
        if movie % 3 == 0:
            np.save(folder / f"{movie}.npy", np.stack(frames))
        elif movie % 3 == 1:
            (folder / f"{movie}").mkdir()
            for number, frame in enumerate(frames):
                Image.fromarray(frame).save(folder / f"{movie}" / f"{number:03d}.png")
        else:
            first, *rest = [Image.fromarray(frame) for frame in frames]
            first.save(folder / f"{movie}.tiff", save_all=True, append_images=rest)
    return f"movies:{folder}"


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return lca_learn(changed(tmp_path_factory.mktemp("serial") / "run"))


@pytest.mark.parametrize(
    ("workers", "grid"),
    [
        pytest.param(4, "2x1x2", marks=pytest.mark.full),
        *(
            pytest.param(*c, marks=pytest.mark.full)
            for c in ((3, "auto"), (2, "auto"), (5, "auto"), (2, "1x2x1"))
        ),
    ],
)
def test_workers_and_grids_learn_the_same_dictionary(
    serial: dict[str, Any], tmp_path: Path, workers: int, grid: str
) -> None:
    found = lca_learn(changed(tmp_path / "run", engine={"workers": workers}, learn={"grid": grid}))
    assert found["dictionary_sha256"] == serial["dictionary_sha256"]


@pytest.fixture(scope="module")
def local() -> Iterator[Engine]:
    """An engine of processes."""
    with contextlib.closing(open_engine("local")) as engine:
        yield engine


def test_processes_learn_the_same_dictionary(
    serial: dict[str, Any], tmp_path: Path, local: Engine
) -> None:
    config = changed(tmp_path / "run", engine={"workers": 2, "engine": "local"})
    assert lca_learn(config, engine=local)["dictionary_sha256"] == serial["dictionary_sha256"]


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.parametrize(
    "master", ["spark_local", pytest.param("spark_cluster", marks=pytest.mark.full)]
)
def test_spark_learns_the_same_dictionary_and_codes(
    serial: dict[str, Any], tmp_path: Path, master: str, request: pytest.FixtureRequest
) -> None:
    spark: EngineProcess = request.getfixturevalue(master)
    config = changed(tmp_path / "run", engine={"workers": 2, "engine": "spark"})
    assert lca_learn(config, engine=spark)["dictionary_sha256"] == serial["dictionary_sha256"]
    found = []
    for engine in (None, spark):
        out = tmp_path / f"codes-{engine is None}.parquet"
        encode = LcaEncodeConfig(
            encode=EncodeConfig(
                run=str(tmp_path / "run"), out=str(out), data="synthetic:40x3x12x12", chunk=5
            ),
            dynamics=DynamicsChanges(max_steps=100),
            engine=EngineConfig(engine="spark" if engine else "inline", workers=2),
        )
        lca_encode(encode, engine=engine)
        found.append(read_codes(out))
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("warm", quick(["none", "epoch", "frame"], "epoch"))
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, warm: str) -> None:
    source = movies(tmp_path / "movies") if warm == "frame" else "synthetic:40x1x12x12"
    learn = {
        "steps": 6,
        "warm_start": warm,
        "order": "movie" if warm == "frame" else "random",
        "batch_size": 4 if warm == "frame" else 20,
        "frames": 3 if warm == "frame" else 0,
    }
    config = changed(tmp_path / "whole", learn=learn, input={"data": source})
    whole = lca_learn(config)
    run = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", run)
    half = changed(tmp_path / "half", learn=learn | {"steps": 3}, input={"data": source})
    lca_learn(half)
    # As a run looks that was stopped after three updates: its checkpoint, and no result yet.
    for name in ("result.json", "dictionary.safetensors", "samples.safetensors"):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(tmp_path / "half" / "checkpoints", run / "checkpoints")
    again = changed(run, learn=learn, input={"data": source}, engine={"workers": 2})
    again = dataclasses.replace(again, run=RunConfig(out=str(run), resume=True))
    found = lca_learn(again)
    assert found["dictionary_sha256"] == whole["dictionary_sha256"]
    lines = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (tmp_path / "whole", run)
    ]
    assert [line["energy"] for line in lines[0]] == [line["energy"] for line in lines[1]]
    assert [line["step"] for line in lines[1]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.full
def test_warm_starts_need_fewer_steps(tmp_path: Path) -> None:
    source = movies(tmp_path / "movies")
    steps = {}
    for warm in ("none", "frame"):
        learn = {"order": "movie", "batch_size": 4, "steps": 5, "warm_start": warm, "lr": 0.0}
        dynamics = {"max_steps": 2000, "check_every": 5, "tolerance": 1e-3}
        run = tmp_path / warm
        prepared = {"data": source, "preprocess": "contrast"}
        config = changed(run, learn=learn, dynamics=dynamics, input=prepared)
        lca_learn(config)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps[warm] = sum(line["code_steps"] for line in lines[1:])
        assert all(line["certified"] == 1 for line in lines)
    assert steps["frame"] < steps["none"], steps


@pytest.mark.full
def test_learning_lowers_the_energy_and_keeps_atoms_at_norm_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = changed(
        run,
        input={"data": "digits", "preprocess": "contrast"},
        dictionary={"atoms": 16, "kernel": "4", "stride": "1", "initial": "random"},
        learn={"steps": 15, "batch_size": 32},
        dynamics={"max_steps": 200},
    )
    lca_learn(config)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["energy"] < 0.9 * lines[0]["energy"]
    atoms = load_dictionary(run).atoms
    torch.testing.assert_close(atoms.flatten(1).norm(dim=1), torch.ones(16))
    elements = (run / "elements" / "rank-0000.jsonl").read_text().splitlines()
    assert len(elements) == 15 * 32
    first = [json.loads(line) for line in elements[:32]]
    assert np.mean([line["energy"] for line in first]) == pytest.approx(lines[0]["energy"])
    assert rewrite_report(run) == run / "report.html"
    page = (run / "report.html").read_text()
    assert "sheet of the dictionary" in page
    assert "its reconstruction" in page


@pytest.mark.parametrize("suffix", quick(["parquet", "arrow"], "parquet"))
def test_codes_do_not_depend_on_how_they_are_computed(tmp_path: Path, suffix: str) -> None:
    lca_learn(changed(tmp_path / "run"))
    found = []
    for number, (workers, chunk) in enumerate([(1, 20), (2, 7)]):
        out = tmp_path / f"codes{number}.{suffix}"
        config = LcaEncodeConfig(
            encode=EncodeConfig(run=str(tmp_path / "run"), out=str(out), chunk=chunk, trace=True),
            dynamics=DynamicsChanges(tolerance=1e-3, max_steps=400),
            engine=EngineConfig(engine="inline", workers=workers),
        )
        figures = lca_encode(config)
        assert figures["images"] == 12
        assert 0 < figures["sparsity"] < 1
        assert (tmp_path / f"codes{number}.{suffix}.trace.parquet").exists()
        found.append(read_codes(out))
    assert found[0].shape == (12, 10, 6, 6)
    assert torch.equal(found[0], found[1])
    assert not list(tmp_path.glob(".*parts"))


def test_wrong_settings_are_told_all_at_once(tmp_path: Path) -> None:
    config = changed(
        tmp_path / "run",
        learn={"batch_size": 0, "warm_start": "frame", "lr": -1.0},
        dynamics={"tau": -1.0, "threshold_type": "hard"},
    )
    with pytest.raises(UserError) as raised:
        lca_learn(config)
    assert len(raised.value.problems) == 5
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="each element needs its own"):
        lca_learn(
            changed(
                tmp_path / "run",
                input={"data": movies(tmp_path / "movies")},
                learn={"order": "movie", "batch_size": 9},
            )
        )
