"""Imports go one way, wherever in a file they stand."""

import ast
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


def imports_of(path: Path, *, in_functions: bool = True) -> set[str]:
    """Modules of sixfold that a file imports, outside of `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if not in_functions and isinstance(node, ast.FunctionDef):
            skipped |= set(ast.walk(node))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {child for statement in node.body for child in ast.walk(statement)}
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(node.module)
    return {name for name in found if name.split(".")[0] == "sixfold"}


def package(module: str) -> str:
    """The package that a module lies in, such as `data`; `cli` for commands."""
    return "cli" if module.endswith(".command") else module.split(".")[1]


ALL = dict(modules())


@pytest.mark.parametrize(
    "module", [name for name in ALL if name not in ("sixfold", "sixfold.__main__")]
)
def test_a_module_imports_only_from_packages_before_its_own(module: str) -> None:
    used = {name for name in imports_of(ALL[module]) if name != "sixfold"}
    rank = PACKAGES.index(package(module))
    above = sorted(name for name in used if PACKAGES.index(name.split(".")[1]) > rank)
    assert not above, f"{module} imports from above: {above}"
    if module.startswith("sixfold.distributed.engines"):
        beyond = {name for name in used if not name.startswith(ENGINES_MAY_USE)}
        assert not beyond, f"{module}: engines know nothing of training: {beyond}"


def test_there_are_at_most_thirteen_packages() -> None:
    packages = [path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()]
    assert sorted(packages) == sorted(set(PACKAGES) - {"sklearn", "cli"})
    assert len(packages) <= 13


def test_no_module_takes_part_in_a_cycle() -> None:
    graph = {
        name: (imports_of(path, in_functions=False) & ALL.keys()) - {name}
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
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if any(imported.split(".")[0] in ("pyspark", "py4j") for imported in names):
                assert name.startswith(SPARKS), name


@pytest.mark.parametrize("module", list(ALL))
def test_no_file_is_longer_than_the_house_allows(module: str) -> None:
    assert len(ALL[module].read_text(encoding="utf-8").splitlines()) <= 500
