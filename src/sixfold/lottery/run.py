"""The launcher of a search for lottery tickets: the dense run, the trellis, the result.

Layout of the job's directory::

    config.json     settings as resolved
    dense/          the dense run, an ordinary run directory
    members/        one run directory a member, named by the hash of its settings
    result.json     the figures; its presence means that the job is finished
    report.html     the report
    log.txt         what workers printed
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

from sixfold import data
from sixfold.core.config import RunConfig
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.life_cycle import Run, RunKind, open_run, run_path
from sixfold.core.run_directory import RunDirectory, as_json
from sixfold.data.config import DataConfig
from sixfold.data.run import resolve_data
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for
from sixfold.distributed.tasks import Outcome, Task, run_job
from sixfold.lottery.choices import parse_rewinds
from sixfold.lottery.config import TicketsConfig, dense_config, plain_data
from sixfold.lottery.member import DENSE, TrellisWork, early_stop
from sixfold.lottery.plan import Cell, Plan, plan_trellis
from sixfold.lottery.report import write_page
from sixfold.lottery.results import (
    Best,
    Carried,
    Found,
    Transfer,
    best_tickets,
    cell_figures,
    dense_figures,
    ways,
)
from sixfold.lottery.speedup import dense_work_s, expected, measured
from sixfold.lottery.transfer import transfer_members
from sixfold.training.config import TrainConfig
from sixfold.training.digits import fit_digits
from sixfold.training.inputs import Inputs, inputs_of
from sixfold.training.losses.config import LossConfig
from sixfold.training.losses.registry import accuracy_problems, with_target
from sixfold.training.run import fit_data, train, training_problems
from sixfold.training.step.schedule import TrainingLength, budget


def tickets(
    config: TicketsConfig, *, engine: Engine | None = None, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Search for lottery tickets and return the figures that `result.json` holds.

    An `engine` that is given is left open. A `UserError` if settings, data or cluster do not fit, a
    `RunError` if the dense run or a member failed; what is done stays done.
    """
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    with contextlib.ExitStack() as stack:

        def opened_engine() -> Engine:
            # Its workers find imported what each would otherwise spend a second on.
            preload = ("sixfold.lottery.member", "torch._dynamo")
            opening = open_engine_for(
                config.engine, config.model.model, preload, together=True, given=engine
            )
            return stack.enter_context(opening)

        early = opened_engine() if config.engine.engine == "local" else None
        raise_problems(ticket_problems(config))
        notes: list[Mapping[str, Any]] = []
        config = _resolve_paths(fit_digits(config, notes.append))
        for event in notes:  # after what may be refused
            on_event(event)
        inputs, place = _inputs(config), str(config.run.out)
        run = stack.enter_context(
            open_run(KIND, config, place, inputs=inputs, on_event=on_event, started=started)
        )
        if run.finished is not None:
            return run.finished
        return _Search(config, run, early or opened_engine(), on_event, inputs).search()


KIND = RunKind(noun="job", mark="trellis", growing=("trellis",), leftovers=(DENSE, "members"))


def ticket_problems(config: TicketsConfig) -> list[str]:
    """Everything that is wrong with the settings and can be told without reading any image."""
    dense = dense_config(config)
    found = [*config.problems(), *training_problems(dense)]
    found += accuracy_problems(with_target(dense.data, dense.loss).target, "sixfold tickets")
    if config.trellis.transfer:
        found += _transfer_data(config, config.trellis.transfer).problems()
    return list(dict.fromkeys(found))


def _transfer_data(config: TicketsConfig, spec: str) -> DataConfig:
    return dataclasses.replace(plain_data(config), data=spec)


def _resolve_paths(config: TicketsConfig) -> TicketsConfig:
    path = run_path(config, TicketsConfig(), f"tickets-{config.model.model}")
    trellis = config.trellis
    if trellis.transfer:
        trellis = dataclasses.replace(trellis, transfer=data.absolute_spec(trellis.transfer))
    return dataclasses.replace(
        config,
        trellis=trellis,
        data=dataclasses.replace(config.data, data=data.absolute_spec(config.data.data)),
        run=dataclasses.replace(config.run, out=path),
    )


def _inputs(config: TicketsConfig) -> Inputs:
    """The network's source, and the data, that of a transfer too."""
    spec = config.trellis.transfer
    sets = [plain_data(config), *([_transfer_data(config, spec)] if spec else [])]
    return inputs_of(models=[config.model], datasets=sets)


class _Search:
    def __init__(
        self, config: TicketsConfig, run: Run, engine: Engine, on_event: OnEvent, inputs: Inputs
    ) -> None:
        self.config, self.run, self.directory = config, run, run.directory
        self.engine, self.on_event = engine, on_event
        self.workers = config.engine.workers or engine.slots()
        self.settings = dense_config(config)
        self.resolved, self.data = fit_data(self.settings, engine, self.workers, on_event)
        self.budget = budget(config.training, len(self.data.train))
        self.rewinds = parse_rewinds(config.trellis.rewinds, self.budget)
        self.images = len(self.data.validation), len(self.data.test)
        self.transfer = self._open_transfer()
        self.inputs = inputs.knowing(self.settings.data, self.resolved.data)

    def search(self) -> dict[str, Any]:
        directory = self.directory
        # Everything that can be wrong is found out before anything is written.
        self._plan({"weights": "not trained yet"})
        self.inputs = self.inputs.built()
        self.run.claim(self.inputs)
        dense, dense_s = self._train_dense()
        plan = self._plan({"weights": dense["weights_sha256"]})
        work_s = dense_work_s(directory.file(DENSE))
        forecast = expected(
            plan.members,
            step_s=work_s / self.budget.total_steps,
            dense_s=dense_s,
            dense_work=work_s,
            workers=self.workers,
        )
        outcome = self._work(plan.members)
        actual = measured(outcome, dense_s=dense_s, dense_work=work_s, workers=self.workers)
        whole = dense_figures(plan, outcome.results, dense, self.images)
        cells = cell_figures(plan, outcome.results, whole, self.images)
        best, transfer = best_tickets(cells), None
        if self.transfer is not None and not outcome.failures:
            outcome, transfer = self._carry_over(plan, best)
        found = Found(
            dense=whole,
            cells=cells,
            best=best,
            sparsities=plan.sparsities,
            rewinds=plan.rewinds,
            steps=self.budget.total_steps,
            validation_images=self.images[0],
            test_images=self.images[1],
            speedup={"expected": forecast, "measured": actual},
            transfer=transfer,
            failures=outcome.failures,
            members=len({record["identity"] for record in outcome.records.values()}),
            done_before=len(outcome.done_before),
            workers=self.workers,
            engine=self.config.engine.engine,
        )
        page = functools.partial(write_page, directory.path, as_json(self.config))
        return self.run.complete(dataclasses.asdict(found), page, failures=outcome.failures)

    def _plan(self, dense: Mapping[str, Any]) -> Plan:
        from sixfold import models
        from sixfold.training.sparsity import prunable
        from sixfold.training.sparsity.layers import left_alone, no_layers

        network = models.build(
            self.config.model,
            shape=self.data.shape,
            classes=self.data.outputs,
            seed=self.config.training.seed,
        )
        settings = as_json(self.settings)
        identity = {
            **dense,
            **{name: settings[name] for name in ("data", "model", "optimizer", "training")},
            **({} if self.config.loss == LossConfig() else {"loss": settings["loss"]}),
            "inputs": self.inputs.identity(),
        }
        layers, alone = prunable(network), left_alone(network)
        if not layers:
            raise UserError(no_layers(self.config.model.model, alone))
        if alone:
            self.on_event({"kind": "note", "text": alone})
        return plan_trellis(self.config, layers=layers, budget=self.budget, dense=identity)

    def _train_dense(self) -> tuple[dict[str, Any], float]:
        """The dense run, trained once: its result, and the seconds it took."""
        path = self.directory.file(DENSE)
        older = RunDirectory(path)
        wanted = {f"step-{step:09d}.safetensors" for step in self.rewinds}
        missing = wanted - {file.name for file in (path / "snapshots").glob("*")}
        # A finished run that did not keep all the states now asked for is trained again; since
        # the same settings give the same bits, what was made from it stays valid.
        again = older.result() is not None and bool(missing)
        run = RunConfig(
            out=str(path),
            resume=older.holds_a_run() and not again,
            overwrite=again,
            checkpoint_every=self.config.run.checkpoint_every,
            keep_checkpoints=self.config.run.keep_checkpoints,
            save_at_steps=tuple(str(step) for step in self.rewinds),
        )
        self.on_event({"kind": "note", "text": f"dense run in {path}"})
        found = train(
            dataclasses.replace(self.settings, run=run), engine=self.engine, on_event=self.on_event
        )
        stop = early_stop(path)
        return {**found, "accuracy": found["validation_accuracy"], **stop}, found["wall_s"]

    def _work(self, members: list[Task]) -> Outcome:
        transfer = (
            None if self.transfer is None else (self.transfer[0], self.transfer[1].total_steps)
        )
        return run_job(
            self.directory.path,
            members,
            TrellisWork(
                config=self.resolved,
                steps=self.budget.total_steps,
                transfer=transfer,
                source=self.inputs.source(self.config.model),
            ),
            self.engine,
            workers=self.workers,
            on_event=self.on_event,
            log=self.directory.file("log.txt"),
        )

    def _open_transfer(self) -> tuple[TrainConfig, TrainingLength, tuple[int, int]] | None:
        """The other data set as workers open it, its schedule, its sizes; it must suit."""
        spec = self.config.trellis.transfer
        if not spec:
            return None
        _, height, width = self.data.shape
        asked = with_target(_transfer_data(self.config, spec), self.config.loss)
        if height == width and asked.resize is None:
            asked = dataclasses.replace(asked, resize=height)
        resolved = resolve_data(asked, self.engine, self.workers, self.on_event)
        opened = data.open_data(resolved)
        if opened.shape != self.data.shape:
            raise UserError(
                f"--transfer {spec}: has images of {_times(opened.shape)}, and the network is for "
                f"{_times(self.data.shape)}; a ticket can be carried over to images of its own "
                "size only (--resize changes height and width)"
            )
        settings = dataclasses.replace(self.resolved, data=resolved)
        sizes = len(opened.validation), len(opened.test)
        return settings, budget(self.config.training, len(opened.train)), sizes

    def _carry_over(self, plan: Plan, tickets: Best) -> tuple[Outcome, Transfer]:
        assert self.transfer is not None, "called only with another data set"
        _, schedule, images = self.transfer
        best, spec = tickets.smallest or tickets.most_accurate, self.config.trellis.transfer
        assert best is not None, "without failures there are tickets"
        members = transfer_members(
            Cell(kind=best.kind, level=best.level, rewind=best.rewind),
            seeds=plan.seeds,
            data={"data": spec},
            steps=schedule.total_steps,
        )
        outcome = self._work([*plan.members, *members])
        ticket = Carried(level=best.level, rewind=best.rewind, sparsity=best.sparsity)
        own = ways(outcome.results, plan.seeds, images)
        return outcome, Transfer(data=spec, ticket=ticket, steps=schedule.total_steps, ways=own)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
