"""Calibrations: what is written is what is read; rehearsals and links are the real thing."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path

import pytest
from tests.perf.plan.conftest import point

import sixfold
from sixfold import data as datasets
from sixfold.core.errors import UserError
from sixfold.distributed.engines import open_engine
from sixfold.distributed.process_group import Communicator
from sixfold.perf.plan.calibrate import refusals
from sixfold.perf.plan.calibration import Calibration, load, network_key, save
from sixfold.perf.plan.memory import available_bytes
from sixfold.perf.plan.process_group import CalibrationJob, calibrate_rank, machine_of, network_of
from sixfold.perf.plan.profiling_run import ProfilingCase, play_together, rehearse


def test_a_calibration_survives_its_file(calibration: Calibration, tmp_path: Path) -> None:
    save(calibration, tmp_path / "machine.json")
    again = load(tmp_path / "machine.json")
    assert again.networks["net"].points == calibration.networks["net"].points
    assert again.machine.links["local"]["1"] == calibration.machine.links["local"]["1"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', '{"format": 1, "machine": 3}'])
def test_a_file_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text(text)
    with pytest.raises(UserError, match="no calibration"):
        load(tmp_path / "machine.json")


def test_new_rehearsals_replace_old_ones(calibration: Calibration) -> None:
    fresh = dataclasses.replace(calibration.networks["net"], points=(point(4, step_s=9.0),))
    joined = calibration.with_network("net", fresh).networks["net"]
    assert len(joined.points) == len(calibration.networks["net"].points)
    assert any(found.step_s == 9.0 for found in joined.points)


def test_a_network_is_known_by_what_its_times_depend_on() -> None:
    one = sixfold.configure(model="slide", lr=0.1)
    assert network_key(one) == network_key(sixfold.configure(model="slide", lr=0.2))
    assert network_key(one) != network_key(sixfold.configure(model="slide", precision="float64"))


def test_a_rehearsal_plays_the_real_step() -> None:
    config = sixfold.configure(data="synthetic:64x3x8x8", model="lenet300")
    data = datasets.open_data(datasets.resolve(config.data))
    whole = rehearse(config, data, 0, ProfilingCase(samples=8, shards=2, seconds=0.01))
    assert len(whole.steps_s) >= 3
    assert whole.exchanges == []
    divided = rehearse(
        config, data, 1, ProfilingCase(mesh="cout=2", samples=8, shards=2, seconds=0.01)
    )
    assert divided.exchanges
    assert divided.payload_bytes <= whole.payload_bytes
    merge = rehearse(config, data, 0, ProfilingCase(samples=8, shards=2, merge=True, seconds=0.01))
    assert merge.merges_s
    assert merge.merge_exchanges


def test_a_case_is_played_by_real_ranks_too() -> None:
    config = sixfold.configure(data="synthetic:64x3x8x8", model="lenet300")
    data = datasets.open_data(datasets.resolve(config.data))

    def play(comm: Communicator) -> list[float | None]:
        cases = (
            ProfilingCase(samples=8, shards=2),
            ProfilingCase(mesh="cout=2", samples=8, shards=2),
        )
        return [play_together(config, data, comm, case, 3) for case in cases]

    for found in open_engine("inline").run_ranks(play, 2).results:
        assert all(took is None or 0 < took < 10 for took in found)


@pytest.mark.full
def test_a_group_calibrates_machine_and_network() -> None:
    config = sixfold.configure(data="synthetic:64x3x8x8", model="lenet300")
    config = dataclasses.replace(config, data=datasets.resolve(config.data))
    cases = (
        ProfilingCase(samples=8, shards=2, concurrency=2, seconds=0.01),
        ProfilingCase(samples=4, shards=1, concurrency=1, seconds=0.01),
    )
    job = CalibrationJob(config=config, cases=cases, seconds=600.0)  # however busy the machine is
    with contextlib.closing(
        open_engine("local", preload=("sixfold.perf.plan.process_group",))
    ) as engine:
        group = engine.run_ranks(functools.partial(calibrate_rank, job), 2)
    machine = machine_of(
        group.results, name="here", engine="local", slots=2, startup_s=group.startup_s, job_s=0.0
    )
    network = network_of(group.results, cases)
    assert all(found.real >= 0 for found in network.points)
    rows = machine.links["local"]["1"]
    assert rows[-1][1] > rows[0][1] > 0
    assert [found.concurrency for found in network.points] == [2, 1]
    assert all(0 < found.step_s < 1 for found in network.points)
    assert network.server["round_s"] > 0
    assert network.shared_update_s > 0


def test_what_cannot_be_held_is_not_even_rehearsed() -> None:
    config = sixfold.configure(data="synthetic:64x3x32x32", model="vgg16")
    opened = datasets.open_data(datasets.resolve(config.data))
    numbers = 15e6  # of the network's weights, about; five vectors of them, on two ranks
    found = refusals(config, opened, 2, available=int(2 * 5 * 4 * numbers / 3))
    assert set(found) == {1, 2}
    assert "0.3 GB a rank" in found[1]
    assert refusals(config, opened, 2, available=10**12) == {}


def test_memory_is_what_the_cgroup_leaves(tmp_path: Path) -> None:
    available = functools.partial(available_bytes, tmp_path, 8_192_000_000)
    assert available() == 8_192_000_000
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("600000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100000000\n")
    assert available() == 500_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available() == 8_192_000_000
