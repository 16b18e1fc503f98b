"""The roofline of Spark: its arithmetic, what is placed on it, and what cannot be."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tests.studies.sweep.test_delay import session

from sixfold.cli import main
from sixfold.core.errors import UserError
from sixfold.perf.profile import Machine, save_machine
from sixfold.perf.profile.limits import CopyRate, ProductRate
from sixfold.studies.lab.activations.study import ActivationsResult, MeasuredWay, Serial
from sixfold.studies.lab.cluster import Cost
from sixfold.studies.lab.job_per_step.study import JobPerStepResult, MeasuredBatch
from sixfold.studies.lab.long_lived import LongLived
from sixfold.studies.lab.loopnest.check import Verdict
from sixfold.studies.lab.loopnest.summary import LiteralRun, LoopnestResult, Measured
from sixfold.studies.lab.matmul.model import Prediction, Rates
from sixfold.studies.lab.matmul.operands import Parts, Product
from sixfold.studies.lab.matmul.summary import MeasuredProduct, summarize
from sixfold.studies.lab.matmul.summary import MeasuredWay as Way
from sixfold.studies.sweep.config import RooflineConfig, SweepRooflineConfig
from sixfold.studies.sweep.delay import DelayResult, delay_result
from sixfold.studies.sweep.fits import Coefficient, FittedLaw, Spread
from sixfold.studies.sweep.results import TimedRow, TimeResult
from sixfold.studies.sweep.roofline import Placed, Roof, job_per_step_s, place, roofs
from sixfold.studies.sweep.roofline_points import placed_in, result_files
from sixfold.studies.sweep.roofline_run import sweep_roofline

DELAY = delay_result([session(1), session(2)], draws=0)


def test_small_tasks_are_all_overhead_and_large_ones_all_work() -> None:
    machine, empty, shuffled = roofs(DELAY, 2, 1e9, [2**24])
    for task_flops in (1.0, 1e12):
        assert machine.attainable_flops(task_flops) == pytest.approx(2e9)
    assert empty.overhead_s == pytest.approx(0.02 + 2 * 0.003 + 0.01)
    assert shuffled.overhead_s == pytest.approx(empty.overhead_s + 2e-8 * 2**24)
    assert empty.attainable_flops(1e3) == pytest.approx(2e3 / empty.overhead_s, rel=1e-3)
    assert empty.attainable_flops(1e15) == pytest.approx(2e9, rel=1e-3)
    assert empty.attainable_flops(empty.ridge_flops) == pytest.approx(1e9)


def test_a_point_is_told_beside_its_ceilings() -> None:
    machine = Roof(name="m", workers=2, peak_flops=1e9, overhead_s=0.0)
    spark = Roof(name="s", workers=2, peak_flops=1e9, overhead_s=0.1)
    point = Placed(name="p", group="g", workers=2, task_flops=1e7, flops=1e9)
    found = place(point, DELAY, spark, machine)
    assert found.part_of_machine == pytest.approx(0.5)
    assert found.spark_flops == pytest.approx(2e7 / 0.11)
    assert found.times_spark == pytest.approx(1e9 * 0.11 / 2e7)
    assert found.job_per_step_flops is None
    # Broadcasts were not measured, so a job per step cannot be told.
    assert job_per_step_s(DELAY, 2, 1e6) is None


def test_a_job_for_each_step_adds_its_overhead_to_the_step() -> None:
    laws = [
        FittedLaw(
            law="load/overhead",
            formula="",
            exact=False,
            outcome="job",
            kind=kind,
            points=[],
            coefficients=[
                Coefficient(name=name, value=value)
                for name, value in (
                    ("job_s", 0.1),
                    ("task_s", 0),
                    ("wave_s", 0),
                    ("byte_s", byte_s),
                )
            ],
        )
        for kind, byte_s in (("empty", 0.0), ("broadcast", 1e-8), ("result", 2e-8))
    ]
    delay = DelayResult(sessions=[], points=[], laws=laws)
    seconds = job_per_step_s(delay, 2, 1e6)
    assert seconds == pytest.approx(0.1 + 0.01 + 2 * 0.02)
    roof = Roof(name="", workers=2, peak_flops=1e9, overhead_s=0.1)
    point = Placed(name="", group="", workers=2, task_flops=1e7, flops=1e9, step_bytes=1e6)
    found = place(point, delay, roof, roof)
    assert found.job_per_step_flops == pytest.approx(2e7 / (0.02 + 0.15))


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def study(name: str, result: Any, **settings: Any) -> dict[str, Any]:
    """What the lab writes, as far as the roofline reads it."""
    return {"study": name, "slots": 2, "settings": settings, **dataclasses.asdict(result)}


BASE = LongLived.of([0.5], [1.0], 2.0)
RIGHT = Verdict(compared=1, error=0.0, complete=True, right=True)


def test_designs_of_the_lab_are_placed_by_their_tasks(tmp_path: Path) -> None:
    cost = Cost(wall_s=4.0, tasks=2000)
    measured = Measured(
        name="1",
        small=RIGHT,
        samples=RIGHT,
        right=True,
        costs=[cost],
        cost=cost,
        sent=1,
        replication=1.0,
        kernel_s=1.0,
        multiply_adds_a_task=1e6,
    )
    run = LiteralRun(
        name="2",
        what="",
        right=RIGHT,
        cost=Cost(wall_s=1.0, tasks=10),
        records=500,
        jobs_in_all=1,
        records_in_all=1,
        estimate_s=1.0,
    )
    result = LoopnestResult(
        empty_job_s=0.1,
        long_lived=BASE,
        multiply_adds=10**9,
        designs=[measured],
        literal=[run],
        winner="1",
    )
    record = study("loopnest", result)
    base, design, literal = placed_in(write(tmp_path / "loopnest.json", record))
    assert (base.task_flops, base.flops, base.jobs) == (1e9, 4e9, False)
    assert (design.name, design.task_flops, design.flops) == ("design 1", 2e6, 5e8)
    assert design.jobs
    assert (literal.task_flops, literal.flops) == (100.0, 1000.0)
    assert placed_in(write(tmp_path / "x.json", {"other": [1, {"cost": 3}]})) == []


def test_products_are_placed_by_way(tmp_path: Path) -> None:
    parts = Parts(inner=2, columns=2)
    rates = Rates(**{field.name: 1.0 for field in dataclasses.fields(Rates)})
    forecast = Prediction(jobs_s=1.0, broadcast_s=0.0, shuffle_s=0.0, kernel_s=0.0)
    cost = Cost(wall_s=0.5, tasks=4)
    way = Way(
        way="outer", costs=[], cost=cost, kernel_s=0.1, error=0.0, right=True, predicted=forecast
    )
    product = MeasuredProduct(
        product=Product(m=1, k=1, n=1, block_rows=1),
        name="p",
        flops=10**8,
        alone_s=1.0,
        alone_predicted_s=1.0,
        ways=[way],
    )
    found = summarize(2, rates, parts, [product], 8).result
    (placed,) = placed_in(write(tmp_path / "m.json", study("matmul", found)))
    assert (placed.name, placed.task_flops, placed.flops) == ("p by outer", 2.5e7, 2e8)


def test_steps_that_are_jobs_are_placed_beside_the_long_job(tmp_path: Path) -> None:
    batch = MeasuredBatch(
        batch=100,
        by_jobs_s=0.5,
        long_lived_s=0.1,
        serial_s=0.2,
        cost=Cost(tasks=4),
        kernel_s=0.1,
        update_s=0.1,
        steps=[0.5],
        delay_s=0.1,
        right=True,
        weights_sha256=["x"],
    )
    settings = {"data": "synthetic:50x3x8x8", "model": "slide"}
    result = JobPerStepResult(empty_job_s=0.1, batches=[batch])
    record = study("job-per-step", result, job_per_step=settings)
    jobs, long = placed_in(write(tmp_path / "j.json", record))
    assert (jobs.jobs, long.jobs) == (True, False)
    assert long.flops == pytest.approx(5 * jobs.flops)
    assert jobs.task_flops == pytest.approx(long.task_flops / 2)
    assert long.task_flops * 2 / 0.1 == pytest.approx(long.flops)


def test_stages_are_placed_by_all_that_they_compute(tmp_path: Path) -> None:
    options = {"images": 10, "size": "8,8", "maps": 4, "kernel": "3,3", "padding": "1,1"}
    ways = [
        MeasuredWay(
            way=way,
            times_s=[9.0, seconds, 0.01],
            forward=Cost(tasks=2),
            backward=Cost(tasks=2),
            total_s=seconds,
            kernel_s=0.1,
            store_s=0.1,
            kept_bytes=1,
            chunks=1,
            right=True,
        )
        for way, seconds in (("same", 0.5), ("driver", 2.0))
    ]
    alone = Serial(forward_s=1.0, backward_s=1.0, gradient_is_that_of_a_step=True)
    result = ActivationsResult(long_lived=BASE, serial=alone, ways=ways)
    record = study("activations", result, convolution=options)
    same, driver = placed_in(write(tmp_path / "a.json", record))
    assert same.flops == pytest.approx(4 * driver.flops)
    products = 2 * 2 * (64 * 4 * 27) + 3 * 2 * (64 * 10)
    assert same.task_flops * 4 == pytest.approx(10 * products, rel=0.15)
    assert same.flops == pytest.approx(same.task_flops * 4 / 0.5)


def test_what_cannot_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="holds no result"):
        result_files(tmp_path)
    for broken in ({"study": "job-per-step"}, {"what": "time", "points": 3}):
        with pytest.raises(UserError, match="lacks figures"):
            placed_in(write(tmp_path / "broken.json", broken))
    assert main(["sweep", "roofline"]) == 2
    assert "--delay DIR" in capsys.readouterr().err
    other = write(tmp_path / "result.json", {"what": "time"})
    assert main(["sweep", "roofline", "--delay", str(other)]) == 2
    assert "is no result of `sixfold sweep delay`" in capsys.readouterr().err


@pytest.fixture
def machine_file(tmp_path: Path) -> Path:
    machine = Machine(
        processor="p",
        cores=2,
        memory_bytes=0,
        caches=(),
        products=(ProductRate(precision="float32", one_core_flops=1e11, all_cores_flops=1.8e11),),
        copies=(CopyRate(array_bytes=1, one_core_bytes=1.0, all_cores_bytes=1.0),),
        torch="",
        measured_at=0.0,
    )
    save_machine(machine, tmp_path / "machine.json")
    return tmp_path / "machine.json"


@pytest.mark.full
def test_sweeps_and_trainings_are_placed(
    tmp_path: Path, machine_file: Path, configure: Any
) -> None:
    from sixfold.training.run import train

    delay = write(tmp_path / "delay" / "result.json", dataclasses.asdict(DELAY)).parent
    row = TimedRow(
        values={"workers": 2},
        workers=2,
        batch_size=10,
        strategy="sync",
        engine="spark",
        images_per_s=Spread(median=1000.0, least=900.0, most=1100.0),
        flops_per_image=1e7,
        weight_bytes=400,
    )
    other = TimedRow(values={}, workers=1, batch_size=10, strategy="sync", engine="inline")
    timed = TimeResult(varied={}, points=[row, other], laws=[], repeats=1, load_before=None)
    sweep = write(tmp_path / "sweep" / "result.json", dataclasses.asdict(timed)).parent
    run = tmp_path / "run"
    train(configure(out=str(run)))
    result = sweep_roofline(
        SweepRooflineConfig(
            roofline=RooflineConfig(
                delay=str(delay), placed=f"{sweep}, {run}", machine_peaks=str(machine_file)
            )
        )
    )
    one, two = result["panels"]
    assert [roof["peak_flops"] for roof in (one["roofs"][0], two["roofs"][0])] == [1e11, 9e10]
    assert len(one["roofs"]) == 2 + 2
    (trained,) = one["points"]
    (point,) = two["points"]
    assert point["flops"] == pytest.approx(1e10)
    assert point["task_flops"] == pytest.approx(5e7)
    assert point["group"] == "sync, one long job"
    assert point["part_of_machine"] == pytest.approx(1e10 / 1.8e11)
    # Convolution 5x5x3 to 32 maps on 8x8, forward and weights' gradient; and the linear layer.
    products = 2 * 2 * (64 * 32 * 75) + 3 * 2 * (512 * 10)
    assert trained["task_flops"] == pytest.approx(40 * products, rel=0.06)
    page = (delay / "roofline" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert json.loads((delay / "roofline" / "result.json").read_text()) == result


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"what": "delay"}))
    (tmp_path / "config.json").write_text("{}")
    roofline = RooflineConfig(delay=str(tmp_path), out=str(tmp_path))
    with pytest.raises(UserError, match="holds a run, whose result and report would be lost"):
        sweep_roofline(SweepRooflineConfig(roofline=roofline))
