"""Imports go one way, wherever in a file they stand."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import sixfold

ROOT = Path(sixfold.__file__).parent

PACKAGES = (
    "core",
    "models",
    "distributed",
    "data",
    "training",
    "compression",
    "prediction",
    "lottery",
    "lca",
    "perf",
    "studies",
    "spark",
    "api",
    "sklearn",
    "cli",
)
"""A package imports only from itself and from those before it; every ``command.py`` is part of the
command line."""

ENGINES_MAY_USE = ("sixfold.core", "sixfold.distributed")


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


@functools.cache
def imports_of(path: Path, *, in_functions: bool = True) -> frozenset[str]:
    """What a file imports, outside of `if TYPE_CHECKING`."""
    found: set[str] = set()
    left: list[ast.AST] = [parsed(path)]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(node.module)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left += node.orelse
        elif in_functions or not isinstance(node, ast.FunctionDef):
            left += ast.iter_child_nodes(node)
    return frozenset(found)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def own(imported: frozenset[str]) -> set[str]:
    """Modules of sixfold among them."""
    return {name for name in imported if name.split(".")[0] == "sixfold"}


def package(module: str) -> str:
    """The package that a module lies in, such as `data`; `cli` for commands."""
    return "cli" if module.endswith(".command") else module.split(".")[1]


ALL = {name: path for name, path in modules() if name != "sixfold.__main__"}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_imports_only_from_those_before_it(name: str) -> None:
    rank = PACKAGES.index(name)
    mine = [module for module in ALL if module.startswith("sixfold.") and package(module) == name]
    assert mine
    for module in mine:
        used = own(imports_of(ALL[module])) - {"sixfold"}
        above = sorted(word for word in used if PACKAGES.index(word.split(".")[1]) > rank)
        assert not above, f"{module} imports from above: {above}"
        if module.startswith("sixfold.distributed.engines"):
            beyond = {word for word in used if not word.startswith(ENGINES_MAY_USE)}
            assert not beyond, f"{module}: engines know nothing of training: {beyond}"


def test_there_are_at_most_thirteen_packages() -> None:
    packages = [path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()]
    assert sorted(packages) == sorted(set(PACKAGES) - {"sklearn", "cli"})
    assert len(packages) <= 13


def test_no_module_takes_part_in_a_cycle() -> None:
    graph = {
        name: (own(imports_of(path, in_functions=False)) & ALL.keys()) - {name}
        for name, path in ALL.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for other in sorted(graph[name]):
            # A package's __init__ re-exports its modules, which may import its siblings.
            if not name.startswith(other + ".") and name != other:
                visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        if name != "sixfold":
            visit(name, ())


SPARKS = ("sixfold.distributed.engines.spark", "sixfold.spark", "benchmarks.bench")


def test_pyspark_is_imported_by_the_spark_engine_and_spark_ml_alone() -> None:
    for name, path in ALL.items():
        found = {word.split(".")[0] for word in imports_of(path)} & {"pyspark", "py4j"}
        assert not found or name.startswith(SPARKS), name


def test_no_file_is_longer_than_the_house_allows() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules()}
    assert {name: count for name, count in lines.items() if count > 500} == {}
