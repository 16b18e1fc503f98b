"""The launcher of a plan: checks, calibrates, predicts, and writes `plan.json` and `plan.html`."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import file_problems, make_folder, write_atomically, write_json
from sixfold.core.html.page import Table
from sixfold.core.version import versions
from sixfold.data import DataSet
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for
from sixfold.perf.plan import report
from sixfold.perf.plan.calibrate import calibrate, fitting_meshes, model_of, refusals
from sixfold.perf.plan.calibration import Calibration, load_if_there, network_key, save
from sixfold.perf.plan.candidates import Prediction, Workload, candidates
from sixfold.perf.plan.cluster import Cluster, parse_cluster
from sixfold.perf.plan.config import PlanConfig, training_of
from sixfold.perf.plan.cost import Price
from sixfold.perf.plan.model import Model
from sixfold.perf.plan.ranking import best, explain, prediction_plain, ranked
from sixfold.perf.plan.to_target import (
    TargetPlan,
    batch_sizes,
    plan_target,
    predict_sizes,
    target_plain,
    target_problems,
    target_sentence,
    target_table,
)
from sixfold.perf.plan.whatif import Point, simulate
from sixfold.perf.plan.whatif_report import what_if_plain, what_if_section, what_if_text
from sixfold.training.config import TrainConfig
from sixfold.training.digits import fit_digits
from sixfold.training.report import optional_page
from sixfold.training.run import fit_data, training_problems
from sixfold.training.selection import parse_target
from sixfold.training.selection import seconds as seconds_of

PRELOAD = ("sixfold.perf.plan.process_group",)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan, as the launcher hands it on."""

    predictions: list[Prediction]  # of all ways, the best first
    ways: Table
    sentences: list[str]  # the explanation
    work: Workload  # what is trained
    price: Price  # of a core hour
    calibration: Calibration  # what it rests on
    notes: tuple[str, ...] = ()  # what was left out and why
    what_if: tuple[Point, ...] = ()  # the simulation of a larger cluster, if one was asked for
    cluster: Cluster | None = None
    to_target: TargetPlan | None = None  # time to a target, if that was asked for
    files: tuple[Path, ...] = ()  # that were written
    seconds: float = 0.0  # that predicting took, calibration left out

    def text(self) -> list[str]:
        """For the terminal."""
        lines = [*self.ways.lines(), "", *self.sentences, *(f"note: {n}" for n in self.notes)]
        if (target := self.to_target) is not None:
            lines += ["", *target_table(target).lines(), "", target_sentence(target)]
            lines += [f"note: {note}" for note in target.notes]
        if self.cluster is not None:
            lines += ["", *what_if_text(self.what_if, self.cluster)]
        return [*lines, *(f"{path.suffix[1:]:<18} {path}" for path in self.files)]


def plan_problems(config: PlanConfig) -> list[str]:
    """Everything that is wrong with the settings and can be told without reading any image."""
    training = training_of(config)
    if config.local_sgd != type(config.local_sgd)():
        # Its settings are refused for other strategies; here they are those of one way among all.
        strategy = dataclasses.replace(training.strategy, strategy="local_sgd")
        training = dataclasses.replace(training, strategy=strategy)
    found = list(dict.fromkeys([*config.problems(), *training_problems(training)]))
    planning = config.planning
    if not planning.measure_network and config.training.precision != "float32":
        found.append(
            "--measure-network false: layers are timed in float32, not in "
            f"{config.training.precision}; "
            "leave it away, and the network's own steps are timed"
        )
    if (Path(planning.out) / "config.json").exists():
        found.append(f"--out {planning.out}: holds a run, whose plan would be lost: choose another")
    if planning.machine is not None and not Path(planning.machine).is_file():
        found += file_problems("--machine", Path(planning.machine))
    found += target_problems(planning, config.data.validation)
    if planning.what_if:
        try:
            cluster = parse_cluster(planning.what_if)
        except UserError as error:
            return [*found, *error.problems]
        if cluster.machine is not None and planning.machine is not None:
            found.append("--machine and machine=FILE of --what-if exclude each other: give one")
        if cluster.machine is not None and not Path(cluster.machine).is_file():
            found.append(f"--what-if: machine={cluster.machine}: there is no such file")
    return found


def plan(
    config: PlanConfig, *, engine: Engine | None = None, on_event: OnEvent | None = None
) -> Plan:
    """Predict what every way to divide a training would take.

    Args:
        config: the settings.
        engine: an open engine to be used and left open; one is opened if absent.
        on_event: called with progress.

    Raises:
        UserError: if the settings, the data or the cluster do not fit.
        RunError: if a rank was lost while it measured.
    """
    on_event = on_event or (lambda _: None)
    raise_problems(plan_problems(config))
    config = fit_digits(config, on_event)
    training = training_of(config)
    cluster = parse_cluster(config.planning.what_if) if config.planning.what_if else None
    foreign = cluster is not None and cluster.machine is not None
    path = cluster.machine if cluster is not None and foreign else config.planning.machine
    known = load_if_there(path)
    opening = open_engine_for(config.engine, config.model.model, preload=PRELOAD, given=engine)
    with opening as engine:
        workers = config.engine.workers or engine.slots()
        resolved, opened = fit_data(training, engine, workers, on_event)
        make_folder(Path(config.planning.out))  # before anything is measured
        fitting = fitting_meshes(resolved, opened, workers)
        if foreign:
            calibration = _of_another_machine(known, path, network_key(resolved))
        else:
            calibration = calibrate(
                resolved,
                opened,
                engine,
                workers,
                known=known,
                fitting=fitting,
                rehearsed=config.planning.measure_network,
                on_event=on_event,
            )
        model, notes = model_of(resolved, calibration, opened)
        to_target = None
        if config.planning.to:
            to_target = _to_target(config, resolved, opened, model, fitting, engine, on_event)
    if config.planning.measure_network and calibration is not known and path is not None:
        save(calibration, Path(path))
    began = time.perf_counter()
    predictions = predict_all(model, resolved, workers, fitting)
    points = simulate(model, cluster) if cluster is not None else []
    seconds = time.perf_counter() - began
    images = len(opened.train)
    ranks = max(min(workers, calibration.machine.slots), 1)
    refused = refusals(resolved, opened, ranks)
    if not config.planning.measure_network:
        notes.append("the network was not run: its times are estimated from those of other layers")
    ways = candidates(resolved, workers, fitting)
    unknown = ", ".join(way.name for way in ways if not model.knows(way))
    left_out = list(refused.values())
    if unknown and not refused:
        left_out = [f"left out, because they were not rehearsed: {unknown}"]
    made = Plan(
        predictions=predictions,
        ways=report.table(predictions, model.work, _price(config)),
        sentences=explain(predictions, model.work),
        work=model.work,
        price=_price(config),
        calibration=calibration,
        notes=(*notes, *left_out),
        what_if=tuple(points),
        cluster=cluster,
        to_target=to_target,
        seconds=seconds,
    )
    return write(made, Path(config.planning.out), training, images)


def _price(config: PlanConfig) -> Price:
    return Price(of_core_hour=config.planning.price)


def _to_target(
    config: PlanConfig,
    resolved: TrainConfig,
    opened: DataSet,
    model: Model,
    fitting: Sequence[Any],
    engine: Engine,
    on_event: OnEvent,
) -> TargetPlan:
    """Time to a target, from short trainings on this engine."""
    planning, machine = config.planning, model.calibration.machine
    sizes = batch_sizes(planning.batch_sizes) or [model.work.batch_size]
    workers = max(min(config.engine.workers or engine.slots(), machine.slots), 1)
    return plan_target(
        training_of(config),
        predict_sizes(model, resolved, workers, fitting, sizes),
        len(opened.train),
        parse_target(planning.to, "--to"),
        _price(config),
        start_s=machine.startup_s + machine.opening_s,
        probe_s=seconds_of(planning.probe, "--probe"),
        folder=Path(planning.out) / "probes",
        engine=engine,
        on_event=on_event,
    )


def _of_another_machine(known: Calibration | None, path: str | None, key: str) -> Calibration:
    """A calibration that cannot be added to here; it must hold this network."""
    if known is None or key not in known.networks:
        raise UserError(
            f"--what-if: machine={path} holds no measurements of this network: run `sixfold plan "
            "--machine FILE` with the same network, data and precision on that machine"
        )
    return known


def predict_all(
    model: Model, config: TrainConfig, workers: int, fitting: Sequence[Any]
) -> list[Prediction]:
    """All ways for which enough was rehearsed, the best first."""
    ways = candidates(config, workers, fitting)
    return ranked([model.predict(way) for way in ways if model.knows(way)])


def write(made: Plan, folder: Path, config: TrainConfig, images: int) -> Plan:
    """Write `plan.json` and `plan.html`."""
    make_folder(folder)
    json_path, html_path = folder / "plan.json", folder / "plan.html"
    write_json(json_path, plan_as_plain(made))
    machine, cluster = made.calibration.machine, made.cluster
    files = [json_path]
    with optional_page(html_path):
        text = report.render(
            title=f"{config.model.model}, {made.work.batch_size} images a batch",
            subtitle=f"{config.data.data} · {images:,} images · {machine.name} · {machine.engine}",
            predictions=made.predictions,
            ways=made.ways,
            sentences=made.sentences,
            notes=made.notes,
            facts={
                "Machine": machine.name,
                "Ranks at a time": f"{machine.slots} on {machine.hosts} host(s)",
                "Start-up of the ranks": f"{machine.startup_s:.2f} s",
                "An empty job of the engine": f"{1000 * machine.job_s:.0f} ms",
                "Memory that a host may give": report.size(machine.available_bytes),
                "Steps": f"{made.work.steps:,}",
            },
            to_target=made.to_target,
            what_if=None if cluster is None else what_if_section(made.what_if, cluster),
        )
        write_atomically(html_path, text.encode())
        files.append(html_path)
    return dataclasses.replace(made, files=tuple(files))


def plan_as_plain(made: Plan) -> dict[str, Any]:
    """A plan as plain data."""
    chosen = best(made.predictions)
    plain = {
        "chosen": None if chosen is None else prediction_plain(chosen),
        "ways": [prediction_plain(found) | made.price.of_run(found) for found in made.predictions],
        "sentences": made.sentences,
        "notes": list(made.notes),
        "work": dataclasses.asdict(made.work),
        "machine": dataclasses.asdict(made.calibration.machine),
        "predicting_s": round(made.seconds, 6),
        "versions": versions(),
    }
    if made.to_target is not None:
        plain["to_target"] = target_plain(made.to_target)
    if made.cluster is not None:
        plain["what_if"] = what_if_plain(made.what_if, made.cluster)
    return plain
