"""Which of the user's own files a network is made of: its module, and what that one uses.

Nothing is run. Imports are followed in the source, from file to file, as far as they lead to files
that are not installed; file names that stand in the source as text, such as that of a table of
widths, count where there is such a file beside it. Where a module imports by names made while it
runs (`importlib`), texts that name modules of the project are followed too.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.models.arguments import parse_arguments
from sixfold.models.importing import place
from sixfold.models.packed import is_packed, read_header
from sixfold.models.user_traceback import is_installed

_LONGEST_NAME = 255


def project_files(name: str, arguments: str = "") -> list[Path]:
    """The user's own files that a network is made of.

    Args:
        name: what `--model` was given.
        arguments: what `--model-args` was given; values that name files count.

    Returns:
        Absolute paths, sorted; none for networks of the zoo and of installed packages.
    """
    if ":" not in name:
        return []
    if is_packed(name):
        return _files_of_packed(name)
    directory, module = place(name)
    walk = _Walk(directory)
    walk.follow(module)
    for value in parse_arguments(arguments)[0].values():
        if isinstance(value, str):
            walk.add_named(value, directory)
    return sorted(walk.files)


def _files_of_packed(name: str) -> list[Path]:
    """The user's own files that a packed object uses by name; its own code is in its name."""
    files: set[Path] = set()
    for module, folder in read_header(name).modules.items():
        walk = _Walk(Path(folder))
        walk.follow(module)
        files |= walk.files
    return sorted(files)


def project_hashes(name: str, arguments: str = "") -> dict[str, str]:
    """SHA-256 of every file of `project_files`, by its name relative to the project's directory."""
    if ":" not in name:
        return {}
    directory = Path.cwd() if is_packed(name) else place(name)[0]
    return {_relative(file, directory): sha256(file) for file in project_files(name, arguments)}


def changed_files(name: str, arguments: str, before: Mapping[str, str]) -> list[str]:
    """What differs in the network's files from what `project_hashes` gave before, for a message.

    Nothing is said where nothing is known of before, or where the network is not to be found.
    """
    if not before:
        return []
    try:
        now = project_hashes(name, arguments)
    except UserError:
        return []
    return sorted(file for file in {*before, *now} if before.get(file) != now.get(file))


def sha256(file: Path) -> str:
    """Hash of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _relative(file: Path, directory: Path) -> str:
    return str(file.relative_to(directory)) if file.is_relative_to(directory) else file.name


class _Walk:
    """Follows imports from file to file."""

    def __init__(self, directory: Path) -> None:
        self.files: set[Path] = set()
        self._search = [str(directory), *sys.path]
        self._seen: set[str] = set()

    def follow(self, module: str) -> None:
        """Take up a module, its packages, and what they use."""
        parts, path = module.split("."), self._search
        for number in range(len(parts)):
            name = ".".join(parts[: number + 1])
            spec = _spec(name, path)
            if spec is None or not self._take(name, spec):
                return
            if spec.submodule_search_locations is None:
                return
            path = list(spec.submodule_search_locations)

    def add_named(self, text: str, folder: Path) -> None:
        """Take up the file that a text names, if there is one."""
        if "." not in text or len(text.encode("utf-8", "replace")) > _LONGEST_NAME:
            return
        for file in (folder / text, Path(text)):
            if file.is_file() and not is_installed(file):
                self.files.add(file.resolve())
                return

    def _take(self, name: str, spec: ModuleSpec) -> bool:
        """Take up one module; whether it is the user's own, or a folder that may hold such."""
        if not spec.has_location or spec.origin is None:
            return spec.submodule_search_locations is not None
        file = Path(spec.origin).resolve()
        if is_installed(file):
            return False
        if name in self._seen:
            return True
        self._seen.add(name)
        if not file.is_file():  # in a zip file on the search path
            self.files |= {parent for parent in file.parents if parent.is_file()}
            return True
        self.files.add(file)
        if file.suffix == ".py":
            package = name if spec.submodule_search_locations else name.rpartition(".")[0]
            self._read(file, package)
        return True

    def _read(self, file: Path, package: str) -> None:
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            return  # importing it says what is wrong
        texts = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        for text in texts:
            self.add_named(text, file.parent)
        for module in _imported(tree, package):
            self.follow(module)
        if _imports_by_name(tree):
            for text in texts:
                if all(part.isidentifier() for part in text.strip(".").split(".")):
                    self.follow(f"{package}{text}" if text.startswith(".") else text)


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names of the modules that a file's import statements may mean."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _imports_by_name(tree: ast.AST) -> bool:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return bool(names & {"import_module", "__import__", "run_path"})


def _spec(name: str, path: list[str]) -> ModuleSpec | None:
    """Where a module is, without importing its packages."""
    try:
        found = PathFinder.find_spec(name, path)
        if found is None and "." not in name:  # a package installed as editable
            found = importlib.util.find_spec(name)
        return found
    except (ImportError, LookupError, ValueError, AttributeError):
        return None
