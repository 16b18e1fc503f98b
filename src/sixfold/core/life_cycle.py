"""The life cycle of a run, the same for every command that keeps its results in a directory.

    with open_run(KIND, config, path, inputs=..., on_event=..., started=...) as run:
        if run.finished is not None:    # the directory holds this run, finished
            return run.finished
        ...                             # open the engine, check settings and data together
        run.claim()                     # from here on the directory is this run's
        ...                             # the work
        return run.complete(figures, write_page)

A run that is refused after `claim` leaves nothing behind unless it has work to keep; one that fails
or is stopped leaves `failure.json`.
"""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sixfold.core.errors import RunError, SixfoldError, UserError
from sixfold.core.events import OnEvent
from sixfold.core.files import write_json
from sixfold.core.html.frame import optional_page
from sixfold.core.locks import held
from sixfold.core.naming import flag_of
from sixfold.core.object_store import is_url
from sixfold.core.run_directory import RunDirectory, as_json, read_whole_json
from sixfold.core.run_store import HeldRun
from sixfold.core.settings import Settings
from sixfold.core.version import versions

RECORD = "inputs.json"  # in the run directory: the content that entered the run
_PLACEMENT = ("engine", "strategy.grid", "learn.grid", "data.cache_size")
"""Who computes what, where: a run may be resumed with others."""


class Inputs(Protocol):
    """What enters a run besides its settings."""

    def write(self, directory: RunDirectory) -> None:
        """Record it in the run directory."""

    def changed(self, record: Mapping[str, Any], *, growing: bool) -> list[str]:
        """What is no longer as the record says, one line each."""


@dataclass(frozen=True, kw_only=True)
class RunKind:
    """What the runs of one command have in common."""

    noun: str = "run"
    # Section of the settings that holds `out`, `overwrite` and, where there is one, `resume`.
    section: str = "run"
    result: str = "result.json"
    page: str = "report.html"
    # A section of the settings that runs of no other command have; empty: a training's only.
    mark: str = ""
    # Patterns of what it leaves in its directory besides what every run does.
    leftovers: tuple[str, ...] = ()
    # Settings, as sections or `section.name`, that may differ where a run is resumed, which is
    # unfinished then.
    growing: tuple[str, ...] = ()
    # Whether a result is of a run that ended before its length, which may be resumed.
    is_unfinished: Callable[[Mapping[str, Any]], bool] = lambda _: False
    # Settings on which a finished run's result does not depend.
    placement: tuple[str, ...] = ("engine",)
    # Whether ranks on other hosts need not see its directory: they publish what they write.
    ranks_publish: bool = False
    # Writes the page of a run that failed.
    failure_page: Callable[[Path], Any] | None = None


def run_path(config: Any, defaults: Any, name: str) -> str:
    """Where the run lies: an absolute path or a URL; named by the settings if none was given.

    What differs from `defaults` decides the name; `name` begins it.
    """
    out = config.run.out
    if out is None:
        out = f"runs/{name.replace(':', '-')}-{_short_hash(config, defaults)}"
    elif is_url(out):
        return str(out).rstrip("/")
    return str(Path(out.removeprefix("file://")).expanduser().absolute())


def _short_hash(config: Any, defaults: Any) -> str:
    """Eight hexadecimal digits that tell settings apart, the place of the run left out."""
    usual = _flat(as_json(defaults))
    settings = _without(_flat(as_json(config)), ("run",))
    changed = {key: value for key, value in settings.items() if value != usual[key]}
    text = json.dumps(changed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class Run:
    """One run, from looking at its directory to its result; made by `open_run`."""

    def __init__(
        self,
        kind: RunKind,
        config: Any,
        directory: RunDirectory,
        inputs: Inputs | None,
        started: float,
    ) -> None:
        self.kind, self.config, self.inputs, self.started = kind, config, inputs, started
        self.directory = directory
        options = getattr(config, kind.section)
        self._can_resume = hasattr(options, "resume")
        self.resume: bool = self._can_resume and options.resume
        self.overwrite: bool = options.overwrite
        self.finished: dict[str, Any] | None = None
        self._claimed = False

    def claim(self, inputs: Inputs | None = None) -> None:
        """Make the directory this run's own: remove what an older one left, record what enters.

        `inputs` replaces those of the beginning where more is known by now.
        """
        directory = self.directory
        self._claimed = True
        directory.create()
        if not self.resume:
            directory.clear(*self.kind.leftovers)
        for name in ("failure.json", self.kind.result):
            directory.file(name).unlink(missing_ok=True)
        if inputs := inputs or self.inputs:
            inputs.write(directory)
        write_json(directory.file("config.json"), as_json(self.config))

    def complete(
        self,
        figures: Mapping[str, Any],
        write_page: Callable[[dict[str, Any]], Any],
        *,
        failures: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Write result and page: `figures` with the time, the versions and the page's path.

        With `failures`, members that failed and why, there is a page, no result, and a `RunError`.
        """
        self.directory.refresh()
        page = self.directory.file(self.kind.page)
        result = {
            "wall_s": round(time.monotonic() - self.started, 3),
            **figures,
            "versions": versions(),
            "report": self.directory.place(self.kind.page),
        }
        if not failures:
            write_json(self.directory.file(self.kind.result), result)
        with optional_page(page):
            write_page(result)
        if failures:
            raise RunError(_failed_members(self.kind.noun, failures))
        return result

    def withdraw(self) -> None:
        """Remove all that the run has left."""
        self.directory.clear(*self.kind.leftovers)

    def _look(self) -> None:
        """Find a finished run with the same settings and inputs; refuse to mix runs."""
        directory, kind = self.directory, self.kind
        mixes = not self.resume and not self.overwrite
        if mixes and (found := directory.foreign_files(*kind.leftovers)):
            raise UserError(
                f"{directory} holds {', '.join(found)} and no run of Sixfold: choose "
                "another --out, or have them removed with --overwrite"
            )
        if not directory.holds_a_run() or self.overwrite:
            return
        record = directory.config()
        if record is None:
            raise UserError(
                f"{directory.place('config.json')} is damaged: put it back, or replace the run "
                "with --overwrite"
            )
        self._refuse_other_command(record)
        old, new = _flat(_with_defaults(record, self.config)), _flat(as_json(self.config))
        own = [f"{kind.section}.{name}" for name in ("out", "resume", "overwrite")]
        without = ["run" if kind.section == "run" else "", *own, *kind.placement]
        grows = False
        if self.resume:
            if new.get("strategy.deterministic") is False:  # it promises less than what was done
                old["strategy.deterministic"] = False
            settled = _without(old, kind.growing), _without(new, kind.growing)
            grows = len(_differences(old, new)) > len(_differences(*settled))
            without += [*_PLACEMENT, *kind.growing]
        self._refuse_other_settings(_without(old, without), _without(new, without))
        if self.inputs is not None:
            self._refuse_other_inputs(self.inputs, grows)
        remedy = "remove it and make the run again"
        if self._can_resume:
            remedy = "go on with --resume, which makes it anew"
        try:
            result = None if grows else read_whole_json(directory.file(kind.result), remedy)
        except UserError:
            if not (self.resume and self._can_resume):
                raise
            result = None
        if result is not None and self.resume and kind.is_unfinished(result):
            return
        if result is None and not self.resume:
            resume = "resume it with --resume, or " if self._can_resume else ""
            raise UserError(
                f"{directory} holds a {kind.noun} that was not finished: {resume}replace it "
                "with --overwrite"
            )
        self.finished = result

    def _refuse_other_command(self, record: Mapping[str, Mapping[str, Any]]) -> None:
        known = as_json(self.config)
        strange = [
            flag_of(name)
            for section, values in record.items()
            for name in values
            if name not in known.get(section, {})
        ]
        if strange or (self.kind.mark and self.kind.mark not in record):
            shown = f", with {', '.join(strange[:3])}" if strange else ""
            raise UserError(
                f"{self.directory} holds a run of another command{shown}: choose another --out, or "
                "replace it with --overwrite"
            )

    def _refuse_other_settings(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        changed = _differences(old, new)
        if not changed:
            return
        growing = self.kind.growing
        grown = not _differences(_without(old, growing), _without(new, growing))
        remedy = "continue it with --resume, choose" if grown else "choose"
        raise UserError(
            [
                f"{self.directory} holds a run with other settings: {remedy} another --out, "
                "or replace it with --overwrite",
                *changed,
            ]
        )

    def _refuse_other_inputs(self, inputs: Inputs, grows: bool) -> None:
        record = read_whole_json(
            self.directory.file(RECORD), "put it back, or replace the run with --overwrite"
        )
        if record is not None and (changed := inputs.changed(record, growing=grows)):
            raise UserError(
                [
                    f"{self.directory} holds a run with the same settings, but of other "
                    "content: choose another --out, or replace it with --overwrite",
                    *changed,
                ]
            )

    def _tell_finished(self, result: Mapping[str, Any], on_event: OnEvent) -> None:
        text = f"{self.directory} holds this {self.kind.noun}, finished"
        asked, ran = getattr(self.config, "engine", None), ("engine", "workers")
        if asked is not None and all(name in result for name in ran):
            wanted = asked.engine, asked.workers or result["workers"]
            if (result["engine"], result["workers"]) != wanted:
                text += f" by {result['workers']} workers on {result['engine']}"
        on_event({"kind": "note", "text": text})

    def _refused(self) -> None:
        """Leave no half-begun run in the way of the next try."""
        saved = any(self.directory.file("checkpoints").glob("step-*"))
        made = any(found for one in self.kind.leftovers for found in self.directory.path.glob(one))
        if self._claimed and not saved and not made:
            self.withdraw()

    def _failed(self, error: BaseException) -> None:
        """Keep why the run ended without a result; `error` stays the one that is reported."""
        if not self._claimed:
            return
        stopped = isinstance(error, KeyboardInterrupt)
        lines = ["stopped by Ctrl-C"] if stopped else str(error).splitlines()
        with contextlib.suppress(OSError, SixfoldError):
            failure = {"time": time.time(), "lines": lines}
            write_json(self.directory.file("failure.json"), failure)
            if self.kind.failure_page is not None and not stopped:
                self.kind.failure_page(self.directory.path)


def _uses_other_hosts(config: Any) -> bool:
    """Whether work may be done where the launcher's copy of a run at a URL is not seen."""
    asked = getattr(config, "engine", None)
    is_local = (getattr(asked, "master", None) or "").startswith("local")
    return getattr(asked, "engine", "") == "spark" and not is_local


@contextmanager
def open_run(
    kind: RunKind,
    config: Any,
    place: Path | str,
    *,
    inputs: Inputs | None = None,
    on_event: OnEvent,
    started: float,
    hold: bool = True,
) -> Iterator[Run]:
    """Have a run's directory to oneself, from looking at what lies there to the run's end.

    `place` is a path or a URL; `Run.directory.path` is where its files are meanwhile. The directory
    is made if absent, and gone again if nothing was put there. `on_event` is called
    with a note if it holds this run, finished; `started` is on the monotonic clock; `hold` is false
    where it lies in one that is held already.
    """
    store = HeldRun(str(place)) if is_url(str(place)) else None
    if store is not None and not kind.ranks_publish and _uses_other_hosts(config):
        raise UserError(
            f"--out {place}: on a cluster this {kind.noun} needs a directory that all hosts mount; "
            "copy it to other storage when it is done, or give --master local[N]"
        )
    path = Path(place) if store is None else store.folder
    run = Run(kind, config, RunDirectory(path, store), inputs, started)
    if run.resume and store is None and not path.is_dir():
        raise UserError(f"--resume: there is no run directory {path}")
    with _held(path, store) if hold else contextlib.nullcontext():
        if run.resume and store is not None and not run.directory.holds_a_run():
            raise UserError(f"--resume: there is no run {place}")
        run._look()
        if run.finished is not None:
            run._tell_finished(run.finished, on_event)
        try:
            yield run
        except UserError:
            run._refused()
            raise
        except (SixfoldError, KeyboardInterrupt) as error:
            run._failed(error)
            raise


def _held(path: Path, store: HeldRun | None) -> contextlib.AbstractContextManager[None]:
    """Keep other processes out of a run."""
    return held(path) if store is None else store.held()


def _failed_members(noun: str, failures: Mapping[str, str]) -> str:
    """Which members of a job failed, a line each, and the remedy."""
    count = len(failures)
    head = f"{count} members of the {noun} failed; what is done is saved, and --resume tries them "
    lines = [f"{name}: {why.splitlines()[0]}" for name, why in list(failures.items())[:10]]
    more = [f"and {count - 10} more"] if count > 10 else []
    return "\n".join([f"{head}again", *lines, *more])


def _with_defaults(old: Mapping[str, Any], config: Any) -> dict[str, dict[str, Any]]:
    """Settings of an older version, with what it did not have as it then was: the default."""
    sections = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    usual = {
        name: as_json(type(section)())
        for name, section in sections.items()
        if isinstance(section, Settings)
    }
    return usual | {name: {**usual.get(name, {}), **values} for name, values in old.items()}


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, values in settings.items()
        for name, value in values.items()
    }


def _without(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        key: value
        for key, value in settings.items()
        if key not in names and key.partition(".")[0] not in names
    }


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Flat settings that differ, in the sections of the new ones, as ``--name: old -> new``."""
    sections = {key.partition(".")[0] for key in new}
    return [
        f"{flag_of(key.partition('.')[2])}: {old.get(key)} -> {new.get(key)}"
        for key in sorted({*old, *new})
        if key.partition(".")[0] in sections and old.get(key) != new.get(key)
    ]
