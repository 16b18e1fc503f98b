"""Which of the user's own files a network is made of: its module, and what that one uses.

Imports are followed in the source without running it (`sixfold.core.project_imports`). If the
module has been imported, what it imported and opened by names that it put together counts too
(`sixfold.models.loaded`).
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sixfold.core.errors import RunError, UserError
from sixfold.core.files import file_sha256
from sixfold.core.project_imports import ImportWalk, variables_read
from sixfold.models.arguments import parse_arguments
from sixfold.models.importing import place, places_of
from sixfold.models.loaded import own_file, used_by
from sixfold.models.packed import is_packed


@dataclass(frozen=True)
class ProjectFiles:
    """The user's own files that a network is made of."""

    # Absolute paths of those that are known before the network is built.
    early: frozenset[Path] = frozenset()
    late: frozenset[Path] = frozenset()  # of those that were used only when it was built
    # Variables of the environment that were read when it was built.
    variables: frozenset[str] = frozenset()


def project_files(name: str, arguments: str = "") -> ProjectFiles:
    """The user's own files that a network is made of; None for the zoo and installed packages.

    Of `--model-args` (`arguments`) values that name files count.
    """
    if ":" not in name:
        return ProjectFiles()
    files, late, variables = set[Path](), set[Path](), set[str]()
    for directory, module in places_of(name):
        walk = ImportWalk(directory)
        walk.follow(module)
        if own_file(sys.modules.get(module)) == walk.modules.get(module):
            used = used_by(module)
            files |= {*used.modules.values(), *used.files}
            late |= used.late
            variables |= used.variables
            for other in used.modules:
                walk.follow(other)
        if not is_packed(name):
            for value in parse_arguments(arguments)[0].values():
                if isinstance(value, str):
                    walk.add_named(value, directory)
        files |= walk.files
    files = {file for file in files if file.is_file()}
    return ProjectFiles(frozenset(files - late), frozenset(files & late), frozenset(variables))


def variables_of(files: ProjectFiles) -> dict[str, str | None]:
    """What the environment says to the names that files of a network ask for; None: nothing."""
    source = [path for path in (*files.early, *files.late) if path.suffix == ".py"]
    names = set(files.variables).union(*map(variables_read, source))
    return {name: os.environ.get(name) for name in sorted(names)}


def variables_read_by(names: Iterable[str]) -> dict[str, str | None]:
    """`variables_of` several of the user's own objects."""
    found: dict[str, str | None] = {}
    for name in names:
        found |= variables_of(project_files(name))
    return found


def variable_hashes(variables: Mapping[str, str | None]) -> dict[str, str]:
    """SHA-256 of the values of variables, by `$NAME`; one that is not set is like an empty one."""
    values = {k: (v or "").encode("utf-8", "surrogateescape") for k, v in variables.items()}
    return {f"${name}": hashlib.sha256(value).hexdigest() for name, value in values.items()}


def project_hashes(name: str, arguments: str = "") -> dict[str, str]:
    """SHA-256 of every file of `project_files`, by its name relative to the project's directory.

    And of the variables of the environment that they read, by `$NAME`.
    """
    found = project_files(name, arguments)
    hashes = {file: file_sha256(file) for file in (*found.early, *found.late)}
    return {**relative_names(name, hashes), **variable_hashes(variables_of(found))}


def relative_names(name: str, hashes: Mapping[Path, str]) -> dict[str, str]:
    """Hashes of files by their names relative to the directory of a network's project."""
    directory = _directory(name)
    return {_relative(file, directory): hashes[file] for file in sorted(hashes)}


def _directory(name: str) -> Path:
    return Path.cwd() if ":" not in name or is_packed(name) else place(name)[0]


def changed_files(name: str, arguments: str, before: Mapping[str, str]) -> list[str]:
    """What differs in the network's files from what `project_hashes` gave before, for a message.

    Nothing is said where nothing is known of before, or where the network is not to be found.
    """
    if not before:
        return []
    try:
        directory, found = _directory(name), project_files(name, arguments)
        now = relative_names(name, {file: file_sha256(file) for file in found.early})
    except UserError:
        return []
    known = [name.removeprefix("$") for name in before if name.startswith("$")]
    now |= variable_hashes({name: os.environ.get(name) for name in known})
    for file in {*before} - {*now}:  # those that it used only when it was built
        if (path := directory / file).is_file():
            now[file] = file_sha256(path)
    return sorted(file for file in {*before, *now} if before.get(file) != now.get(file))


def refuse_edited(name: str, source: Mapping[str, str]) -> None:
    """A `RunError` if files are not as `project_hashes` (`source`) had them; absent ones pass."""
    directory = _directory(name)
    changed = [
        file
        for file, before in source.items()
        if (directory / file).is_file() and file_sha256(directory / file) != before
    ]
    if changed:
        raise RunError(
            f"--model {name}: {', '.join(sorted(changed))} changed after this run had begun, so "
            "the rest of it would be of another network: put the file back and go on with "
            "--resume, or start anew with --overwrite"
        )


def _relative(file: Path, directory: Path) -> str:
    return str(file.relative_to(directory)) if file.is_relative_to(directory) else file.name
