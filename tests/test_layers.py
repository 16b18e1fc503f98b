"""Imports go one way, wherever in a file they stand."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sixfold

ROOT = Path(sixfold.__file__).parent

LAYERS = [
    [
        "errors",
        "config",
        "environment",
        "keys",
        "shards",
        "files",
        "tensor_file",
        "torch_file",
        "values",
        "naming",
        "locks",
        "sections",
    ],
    ["world"],
    ["collectives"],
    ["data", "models", "kernels", "native", "metrics"],
    ["split"],
    ["links"],
    ["step"],
    ["merges"],
    ["sparsity"],
    ["checkpoint", "run_directory", "trained", "parts_file"],
    ["classifier"],
    ["servers"],
    ["evaluate", "strategies"],
    ["training_log"],
    ["training", "prediction", "compression", "lca"],
    ["measure"],
    ["report"],
    ["plan"],
    ["validate", "engines"],
    ["jobs"],
    ["tickets", "robustness", "sweep"],
    ["launch"],
    ["bench", "lab"],
    ["cli"],
]
"""From the bottom to the top; a room may use its own layer and those above it in this list."""

ENGINES_MAY_USE = {"errors", "world", "engines"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports_of(path: Path) -> set[str]:
    """Modules of sixfold that a file imports, outside of `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    found: set[str] = set()
    for node in ast.walk(tree):
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


def room(module: str) -> str | None:
    """The room that a module lies in, such as `data`; None for the package itself."""
    parts = module.split(".")
    if len(parts) < 2:
        return None
    is_room = (ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").is_file()
    return parts[1] if is_room else None


def layer(name: str) -> int:
    found = [number for number, rooms in enumerate(LAYERS) if name in rooms]
    assert found, f"{name} has no place in LAYERS"
    return found[0]


ALL = dict(modules())


@pytest.mark.parametrize("module", [name for name in ALL if room(name) not in (None, "__main__")])
def test_a_module_imports_only_from_below(module: str) -> None:
    own = room(module)
    assert own is not None
    used = {room(name) for name in imports_of(ALL[module])} - {None, own}
    above = sorted(name for name in used if name and layer(name) > layer(own))
    assert not above, f"{module} imports from above: {above}"
    if own == "engines":
        assert used <= ENGINES_MAY_USE, f"{module}: engines know nothing of training"


def test_no_module_takes_part_in_a_cycle() -> None:
    graph = {
        name: {other for other in imports_of(path) if other in ALL and other != name}
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


def test_pyspark_is_imported_by_the_spark_engine_alone() -> None:
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
                assert name.startswith(("sixfold.distributed.engines.spark", "benchmarks.bench")), (
                    name
                )


@pytest.mark.parametrize("module", list(ALL))
def test_no_file_is_longer_than_the_house_allows(module: str) -> None:
    assert len(ALL[module].read_text(encoding="utf-8").splitlines()) <= 500
