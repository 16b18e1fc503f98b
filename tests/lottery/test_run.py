"""Whole searches for tickets: what members compute, who computes it, what is left when they die."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.spark_masters import EngineProcess

from sixfold.cli import main
from sixfold.core.errors import RunError, UserError
from sixfold.lottery.config import TicketDataConfig, TicketGridConfig, TicketsConfig
from sixfold.lottery.run import tickets
from sixfold.training.config import TrainConfig
from sixfold.training.run import train
from sixfold.training.sparsity import kept_weights, load_mask

Configure = Callable[..., TrainConfig]


@pytest.fixture
def search(configure: Configure, tmp_path: Path) -> Callable[..., TicketsConfig]:
    """Settings of a small search."""

    def make(out: str = "job", more: Mapping[str, Any] | None = None, **trellis: Any) -> Any:
        base = configure(out=str(tmp_path / out), data="synthetic:240x3x8x8", **(more or {}))
        return TicketsConfig(
            trellis=TicketGridConfig(**{"sparsities": "0.5,0.9"} | trellis),
            data=TicketDataConfig(data=base.data.data, validation=0.2, augment="flip"),
            **{
                name: getattr(base, name)
                for name in ("model", "optimizer", "training", "engine", "run")
            },
        )

    return make


def resumed(config: TicketsConfig) -> TicketsConfig:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, resume=True))


def members_of(out: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Name -> folder and record."""
    found = {}
    for path in (out / "members").glob("*/result.json"):
        record = json.loads(path.read_text())
        found[record["name"]] = (path.parent, record)
    return found


def test_a_member_is_the_training_that_its_name_says(
    search: Callable[..., TicketsConfig], configure: Configure, tmp_path: Path
) -> None:
    config = search(rewinds="0,3", controls="reinit,random", seeds=2, method="iterative")
    result = tickets(config)
    members = members_of(tmp_path / "job")
    folder, record = members["ticket 2 @3 seed 0"]
    snapshot = tmp_path / "job" / "dense" / "snapshots" / "step-000000003.safetensors"
    alone = train(
        configure(
            out=str(tmp_path / "alone"),
            data="synthetic:240x3x8x8",
            validation=0.2,
            augment="flip",
            weights=str(snapshot),
            mask=str(folder / "mask.safetensors"),
            start_step=3,
        )
    )
    assert record["result"]["weights_sha256"] == alone["weights_sha256"]
    assert record["result"]["test_accuracy"] == alone["test_accuracy"]
    assert len(result["cells"]) == 3 * 2 * 2
    assert json.loads((tmp_path / "job" / "result.json").read_text()) == result
    page = (tmp_path / "job" / "report.html").read_text()
    assert "Control: the same masks, fresh weights" in page


def test_masks_are_exact_nested_and_kept_to(
    search: Callable[..., TicketsConfig], tmp_path: Path
) -> None:
    config = search(controls="random,reinit", method="iterative", scope="layerwise")
    weight_decay = dataclasses.replace(config.optimizer, weight_decay=0.01)
    tickets(dataclasses.replace(config, optimizer=weight_decay))
    members = members_of(tmp_path / "job")
    masks = {name: load_mask(folder / "mask.safetensors") for name, (folder, _) in members.items()}
    for level, sparsity in ((1, 0.5), (2, 0.9)):
        for kind in ("ticket", "random", "reinit"):
            folder, record = members[f"{kind} {level} @0 seed 0"]
            mask = masks[f"{kind} {level} @0 seed 0"]
            kept, total = kept_weights(mask)
            assert kept == total - int(sparsity * total + 0.5)
            assert (record["result"]["kept"], record["result"]["prunable"]) == (kept, total)
            weights = load_file(folder / "model.safetensors")
            for name, keep in mask.items():
                assert not weights[name][~keep].any()
    first, second = masks["ticket 1 @0 seed 0"], masks["ticket 2 @0 seed 0"]
    assert all(not (second[name] & ~first[name]).any() for name in first)
    assert all(torch.equal(masks["reinit 2 @0 seed 0"][name], second[name]) for name in second)


def hashes_of(result: Mapping[str, Any]) -> list[str]:
    return [run["weights_sha256"] for cell in result["cells"] for run in cell["runs"]]


@pytest.mark.full
def test_the_bits_do_not_depend_on_workers(search: Callable[..., TicketsConfig]) -> None:
    trellis: dict[str, Any] = {"sparsities": "0.6", "rewinds": "2", "seeds": 2}
    inline = tickets(search("inline", **trellis))
    local = tickets(search("local", {"engine": "local", "workers": 2}, **trellis))
    assert len(set(hashes_of(inline))) == 2
    assert hashes_of(inline) == hashes_of(local)
    assert inline["dense"] == local["dense"]


@pytest.mark.full
@pytest.mark.spark
def test_the_bits_are_those_of_spark(
    search: Callable[..., TicketsConfig], spark_local: EngineProcess
) -> None:
    trellis: dict[str, Any] = {"sparsities": "0.6", "rewinds": "2", "seeds": 2}
    inline = tickets(search("inline", **trellis))
    config = search("spark", {"engine": "spark", "workers": 2}, **trellis)
    spark = tickets(config, engine=spark_local)
    assert hashes_of(inline) == hashes_of(spark)


def test_a_finished_job_is_told_again_and_a_grown_one_keeps_what_is_there(
    search: Callable[..., TicketsConfig], tmp_path: Path
) -> None:
    first = tickets(search())
    heard: list[Any] = []
    assert tickets(search(), on_event=heard.append) == first
    assert [event["kind"] for event in heard] == ["note"]
    with pytest.raises(UserError, match="other settings"):
        tickets(search(sparsities="0.5,0.9,0.95"))
    dense = (tmp_path / "job" / "dense" / "model.safetensors").stat().st_mtime_ns
    grown = tickets(resumed(search(sparsities="0.5,0.9,0.95")))
    assert (grown["done_before"], grown["members"]) == (2, 3)
    assert (tmp_path / "job" / "dense" / "model.safetensors").stat().st_mtime_ns == dense
    # Another rewind point needs a state that was not kept: the dense run is made again, with the
    # same bits, so the members stand.
    wider = tickets(resumed(search(sparsities="0.5,0.9,0.95", rewinds="0,4")))
    assert (wider["done_before"], wider["members"]) == (3, 6)


def test_a_failed_member_fails_the_job_and_is_tried_again(
    search: Callable[..., TicketsConfig], tmp_path: Path
) -> None:
    tickets(search())
    folder, _ = members_of(tmp_path / "job")["ticket 1 @0 seed 0"]
    (folder / "result.json").unlink()
    (tmp_path / "job" / "result.json").unlink()
    snapshot = tmp_path / "job" / "dense" / "snapshots" / "step-000000000.safetensors"
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[:100])
    with pytest.raises(RunError, match=r"1 members of the job failed.*\n.*no weights can be read"):
        tickets(resumed(search()))
    assert "not finished" in (tmp_path / "job" / "report.html").read_text()
    snapshot.write_bytes(whole)
    again = tickets(resumed(search()))
    assert (again["done_before"], again["failures"]) == (1, {})


def kill_once(members: Path, killed: list[int]) -> None:
    """Kill the first worker that has saved a checkpoint of its member."""
    deadline = time.monotonic() + 60
    while not killed and time.monotonic() < deadline:
        for path in members.glob("*/checkpoints/step-*.safetensors"):
            killed.append(json.loads((path.parents[1] / "progress.json").read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.002)


@pytest.mark.full
def test_a_killed_worker_costs_a_try_and_not_a_bit(
    search: Callable[..., TicketsConfig], tmp_path: Path
) -> None:
    settings = {"steps": 150, "checkpoint_every": 5}
    calm = tickets(search("calm", settings))
    killed: list[int] = []
    killer = threading.Thread(target=kill_once, args=(tmp_path / "job" / "members", killed))
    killer.start()
    found = tickets(search("job", settings | {"engine": "local", "workers": 2}))
    killer.join()
    assert killed
    tries = [record["tries"] for _, record in members_of(tmp_path / "job").values()]
    assert sorted(tries) == [1, 2]
    assert hashes_of(found) == hashes_of(calm)
    assert [cell["runs"] for cell in found["cells"]] == [cell["runs"] for cell in calm["cells"]]


def test_lines_and_transfer(search: Callable[..., TicketsConfig], tmp_path: Path) -> None:
    config = search(sparsities="0.5", instability=11, transfer="synthetic:300x3x8x8")
    result = tickets(config)
    (cell,) = result["cells"]
    assert len(cell["errors"]) == 11
    ends = (cell["errors"][0] + cell["errors"][-1]) / 2
    assert cell["instability"] == pytest.approx(max(cell["errors"]) - ends)
    assert cell["errors"][0] == pytest.approx(1 - cell["runs"][0]["accuracy"])
    ways = [way["way"] for way in result["transfer"]["ways"]]
    assert ways == ["ticket", "rewound", "reinit", "scratch"]
    members = members_of(tmp_path / "job")
    source, _ = members["ticket 1 @0 seed 0"]
    start = load_file(members["transfer ticket seed 0"][0] / "start.safetensors")
    for name, tensor in load_file(source / "model.safetensors").items():
        assert torch.equal(start[name], tensor)


def test_wrong_input_is_told_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--data", "digits", "--model", "lenet6", "--sparsities", "2.5", "--seeds", "no"]
    assert main(["tickets", *words, "--out", str(tmp_path / "job"), "--engine", "inline"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert not (tmp_path / "job").exists()


def test_a_rewind_point_behind_the_end_leaves_nothing_behind(
    search: Callable[..., TicketsConfig], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="does not lie before the end"):
        tickets(search(rewinds="6"))
    with pytest.raises(UserError, match="own size only"):
        tickets(search(transfer="digits"))
    assert not (tmp_path / "job").exists()
