"""The run directory: everything that a run reads and writes, and who may write it.

Layout::

    config.json            settings as resolved
    inputs.json            hashes of the files and the data that enter the run
    attempt                number of the newest attempt, and a token that proves the disk is shared
    attempts/              the same where the run lies, or has lain, at a URL
    metrics.jsonl          one object per logged step
    merges.jsonl           one object per merge of weights, where workers train apart
    timeline/rank-0000.jsonl   where each rank's time went, step by step
    timeline/rank-0000.json    who the rank is, when it was called and when it was ready
    timeline/launcher.json     when the run was launched, and its ranks called for
    trace.json             what all ranks did, for Perfetto, if `sixfold profile` was asked for it
    profile/, profile.json, profile.html   what `sixfold profile` measured
    checkpoints/           the last few and the best
    snapshots/             the checkpoints of the steps that `--save-at-steps` names
    servers/               snapshots of parameter servers, for their restart
    model.safetensors      the final weights
    result.json            the figures; its presence means that the run is finished
    plan.json              what the planner chose and why, where it was asked to
    division.json          how each layer is divided, where that differs; `--grid` takes it
    tuning.json            the content of the file that `--tuning` named, when the run began
    failure.json           why the last start ended without a result
    report.html            the report
    objects/               what was given from Python and no module has: networks, functions
    tracking.json          what trackers have been sent, with `--track`
    tensorboard/           event files, with `--track tensorboard`
    log.txt                what ranks and engine printed

It may lie at a URL: then `path` is a working copy on this host; see `sixfold.core.run_store`.

Every start of the ranks is an *attempt* with a number of its own. A rank that finds a newer
number in the directory is a left-over of an older attempt and may write nothing any more.
"""

import dataclasses
import json
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sixfold.core.errors import RunError, UserError
from sixfold.core.files import (
    explained,
    make_folder,
    parse_json,
    parse_json_lines,
    write_atomically,
    write_json,
)
from sixfold.core.run_store import HeldRun, RunStore, SupersededError, rank_copy

Result = TypeVar("Result")

_OWN = """
config.json inputs.json attempt attempts metrics.jsonl merges.jsonl result.json failure.json
plan.json division.json tuning.json model.safetensors model.raw.safetensors dictionary.safetensors
samples.safetensors report.html log.txt lr-find.json lr-find.html tracking.json tensorboard
trace.json profile.json profile.html timeline checkpoints snapshots servers elements logs profile
"""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the launcher hands to the ranks of one run so that they can check the directory."""

    path: Path  # absolute; of the launcher's working copy, where the run lies at a URL
    token: str  # random text that the launcher has put there
    url: str = ""  # of a run in a store

    def is_apart(self) -> bool:
        """Whether this host does not see the directory, of a run that may be had from a store."""
        return bool(self.url) and _read_attempt(self.path)[1] != self.token

    def here(self) -> Path:
        """The directory, or the copy of it, that ranks of this host use."""
        return rank_copy(self.url, self.token).folder if self.is_apart() else self.path


class RunDirectory:
    """A run's directory as the launcher sees it."""

    def __init__(self, path: Path, held: HeldRun | None = None) -> None:
        self.path, self._held = path.absolute(), held
        self.token = secrets.token_hex(8) if held is None else held.token

    def __str__(self) -> str:
        """The place that the user has named."""
        return str(self.path) if self._held is None else self._held.url

    def place(self, name: str) -> str:
        """The path or URL of a file, for people."""
        return f"{self}/{name}"

    def create(self) -> None:
        """Make the directory; a `UserError` if that is not possible."""
        make_folder(self.path)

    def file(self, name: str) -> Path:
        """Path of a file in the directory."""
        return self.path / name

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, or None."""
        return read_json(self.file("result.json"))

    def config(self) -> dict[str, Any] | None:
        """The settings of the run that is or was here, by section; None if there are none."""
        found = found_here(read_json(self.file("config.json")) or {}, self.path)
        return found if found and all(isinstance(part, dict) for part in found.values()) else None

    def holds_a_run(self) -> bool:
        """True if a run has begun here."""
        return self.file("config.json").exists()

    def foreign_files(self, *more: str) -> list[str]:
        """What lies where a run writes although none has begun here: it is somebody else's.

        `more` are patterns of what this kind of run leaves besides what every run does.
        """
        if self.holds_a_run():
            return []
        return sorted({path.name for one in (*_OWN.split(), *more) for path in self.path.glob(one)})

    def clear(self, *more: str) -> None:
        """Remove what an older run left, and nothing else; `more` as for `foreign_files`."""
        for name in (*_OWN.split(), *more):
            for path in self.path.glob(name):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def claim(self) -> int:
        """Begin a new attempt; its number, from 1. Older ones may write nothing any more."""
        number = _read_attempt(self.path)[0] + 1 if self._held is None else self._held.claim()
        write_json(self.file("attempt"), {"attempt": number, "token": self.token})
        return number

    def refresh(self) -> None:
        """See what ranks on other hosts have published, where the run lies at a URL."""
        if self._held is not None:
            self._held.run.pull()

    def ticket(self) -> Claim:
        """What ranks need to find the directory and check that it is the same one."""
        url = "" if self._held is None else self._held.url
        return Claim(path=self.path, token=self.token, url=url)


OBJECTS = "objects"
"""Folder of a run directory with what settings name by its path; see `sixfold.models.packed`."""


def found_here(value: Any, folder: Path) -> Any:
    """Settings of a run, the objects that they name taken from where its directory is now."""
    if isinstance(value, dict):
        return {name: found_here(each, folder) for name, each in value.items()}
    if isinstance(value, list):
        return [found_here(each, folder) for each in value]
    path, _, title = str(value).rpartition(":")
    if isinstance(value, str) and path.endswith(".pkl"):
        here = folder.absolute() / OBJECTS / Path(path).name
        return f"{here}:{title}" if here.is_file() else value
    return value


class RankFiles:
    """The run directory as one rank of one attempt sees it.

    A `UserError` says that it is not the launcher's, or not writable, from this host.
    """

    def __init__(self, claim: Claim, *, attempt: int, rank: int, host: str) -> None:
        self.path, self.attempt, self.rank = claim.path, attempt, rank
        _, token = _read_attempt(claim.path)
        self._store, self._is_apart = None, claim.is_apart()
        if claim.url:
            self._store = self._open_store(claim)
        elif token != claim.token:
            raise UserError(
                f"rank {rank} on {host} does not see the run directory {claim.path} that the "
                "launcher made: --out must lie on storage that all hosts share"
            )
        probe = self.path / f".probe-{attempt}-{rank}"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"rank {rank} on {host} cannot write to the run directory {self.path} "
                f"({error.strerror}): --out must be writable on all hosts"
            ) from error
        self.fence()

    def fence(self) -> None:
        """Raise a `SupersededError` if a newer attempt has begun."""
        number, _ = _read_attempt(self.path)
        if number != self.attempt and not self._is_apart:
            raise SupersededError(
                f"attempt {self.attempt} was superseded by attempt {number}: rank {self.rank} stops"
            )
        if self._store is not None:
            self._store.fence()

    def publish(self) -> None:
        """See that all hosts have what this rank has written: a run at a URL has copies."""
        if self._is_apart and self._store is not None:
            self._store.publish()

    def close(self) -> None:
        """Publish what is left, unless a newer attempt has begun, which then does it."""
        with suppress(RunError):
            self.publish()

    def refresh(self) -> None:
        """See that this rank has what all hosts have published."""
        if self._is_apart and self._store is not None:
            self._store.pull()

    def _open_store(self, claim: Claim) -> RunStore:
        """The store of a run at a URL, and on another host than the launcher's an own copy."""
        if not self._is_apart:
            store = RunStore(claim.url, claim.path)
        else:
            store = rank_copy(claim.url, claim.token)
            self.path = store.folder
            if store.facts(self.attempt).get("token") != claim.token:
                raise SupersededError(f"attempt {self.attempt} at {claim.url} is another process's")
            store.pull()
        store.number = self.attempt
        return store

    def write_json(self, name: str, value: Any) -> None:
        """Write plain data to a file of the directory, atomically, if still allowed to."""
        self.fence()
        write_json(self.path / name, value)
        self.publish()

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file of the directory, atomically, if still allowed to."""
        self.fence()
        write_atomically(self.path / name, data)
        self.publish()


class JsonLines:
    """A file of one JSON object a line that is only appended to.

    Opening it rewrites the lines to be kept into a new file that takes the old one's place, so a
    left-over writer of an older attempt goes on writing into a file that nobody sees. Lines are in
    the order of their ``step``: those up to `up_to_step` are kept, 0 starts anew. `keep`, if given,
    says of those of that very step which are.
    """

    def __init__(
        self, path: Path, *, up_to_step: int, keep: Callable[[Any], bool] | None = None
    ) -> None:
        old = path.read_bytes() if path.exists() else b""
        self.dropped: list[dict[str, Any]] = []  # lines that were not kept, the last one first
        self.last: dict[str, Any] = {}  # the last that was
        end = len(old)
        while end and not self.last:
            begin = old.rfind(b"\n", 0, end - 1) + 1
            found, _ = parse_json_lines([old[begin:end].decode(errors="replace")])
            line = found[0] if found else {}
            step = line.get("step", 0)
            is_kept = bool(line) and up_to_step > 0 and step <= up_to_step
            if is_kept and not (step == up_to_step and keep is not None and not keep(line)):
                self.last = line
                break
            self.dropped += found
            end = begin
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, old[:end])
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def append(self, *lines: dict[str, Any]) -> None:
        """Write lines and hand them to the operating system at once."""
        with explained(self._path):
            self._file.write("".join(json.dumps(line) + "\n" for line in lines))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __del__(self) -> None:
        # A rank that ends by an exception does not always come to close what it has opened.
        if "_file" in self.__dict__:
            self._file.close()


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is none or it is damaged."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def typed(kind: type[Result], data: Any) -> Result:
    """Plain data, as of a result file, as its dataclass; a `UserError` if they do not fit."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"lacks figures of a result: {place}: {first['msg']}") from error


def read_whole_json(path: Path, remedy: str = "put it back") -> dict[str, Any] | None:
    """The object in a JSON file, None if absent; a `UserError` with `remedy` if damaged."""
    try:
        value = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (it holds no JSON object): {remedy}")
    return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; a broken line (a crash's last one) is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return parse_json_lines(text.splitlines())[0]


def _read_attempt(path: Path) -> tuple[int, str]:
    file = path / "attempt"
    if not file.exists():
        return 0, ""
    value = read_json(file) or {}
    number, token = value.get("attempt"), value.get("token")
    if type(number) is not int or not isinstance(token, str):
        raise UserError(
            f"{file} is damaged: remove it when no process of the run is left, and go on with "
            "--resume"
        )
    return number, token


def as_json(config: Any) -> dict[str, Any]:
    """A configuration as plain data, as `config.json` holds it."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain
