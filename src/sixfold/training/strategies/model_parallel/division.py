"""How a network is divided: a grid of ranks, and layers that divide themselves in another way.

As one line, which is what ranks get and results tell, or as a file, TOML or JSON:

    batch=2,rows=2;features.3:cout=2;classifier.1:outputs

    grid = "batch=2,rows=2"
    [layers]
    "features.3" = "cout=2"
    "classifier.1" = "outputs"

A convolution takes axes whose product is that of the grid without batch. A linear layer takes
`inputs` (the sum over input features is divided as the input is, which is usual) or `outputs` (the
input is brought to every rank, and output features are divided). Layers without weights follow
their input; between layers that are divided in different ways the values are redistributed.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.training.config import TrainConfig
from sixfold.training.strategies.model_parallel.grid import Grid, Mesh, parse_grid

INPUTS, OUTPUTS = "inputs", "outputs"
"""Ways of a linear layer."""

SUFFIXES = (".toml", ".json")
_KEYS = {"grid", "layers"}

Ways = tuple[tuple[str, Mesh | str], ...]
"""Name of a layer, and its axes or one of the above."""


@dataclass(frozen=True, kw_only=True)
class LayerGrid(Grid):
    """A grid, and what single layers do."""

    layers: Ways = ()

    def __str__(self) -> str:
        """As `--grid` takes it."""
        named = [f"{name}:{_written(way)}" for name, way in self.layers]
        return ";".join([super().__str__(), *named])

    def file(self) -> dict[str, Any]:
        """As a file holds it."""
        return {
            "grid": super().__str__(),
            "layers": {name: _written(way) for name, way in self.layers},
        }


def _written(way: Mesh | str) -> str:
    return way if isinstance(way, str) else str(Grid(mesh=way))


def read_division(text: str) -> tuple[LayerGrid | None, list[str]]:
    """Read `--grid`: one line, or the path of a file.

    Returns:
        The division, and a line for everything that is wrong (then there is no division).

    >>> division, _ = read_division("rows=2;conv:cout=2;last:outputs")
    >>> str(division)
    'rows=2;conv:cout=2;last:outputs'
    >>> read_division("rows=2;conv:cout=3;last")[1]
    ["--grid: 'conv' has cout=3, of 3 ranks, and the grid has 2 without batch", \
"--grid: 'last' is not LAYER:WAY, such as conv1:cout=2 or fc:outputs"]
    """
    if text.endswith(SUFFIXES):
        return _read_file(Path(text))
    grid, *named = text.split(";")
    found: list[tuple[str, Any]] = []
    problems = []
    for item in filter(None, (part.strip() for part in named)):
        name, colon, way = item.partition(":")
        if not colon or not name.strip():
            problems.append(
                f"--grid: {item!r} is not LAYER:WAY, such as conv1:cout=2 or fc:outputs"
            )
        else:
            found.append((name.strip(), way.strip()))
    return _made(grid, found, problems, "--grid")


def as_line(text: str) -> str:
    """`--grid` without the file, so that the run's settings hold what it says."""
    division = read_division(text)[0] if text.endswith(SUFFIXES) else None
    return text if division is None else str(division)


def division_of(config: TrainConfig) -> LayerGrid | None:
    """The division of a run whose layers are not all divided alike."""
    if config.strategy.strategy != "model_parallel":
        return None
    division = read_division(config.strategy.grid)[0]
    return division if division is not None and division.layers else None


def _read_file(path: Path) -> tuple[LayerGrid | None, list[str]]:
    flag = f"--grid {path}"
    try:
        content = path.expanduser().read_text(encoding="utf-8")
        found = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except OSError as error:
        return None, [f"{flag}: {error.strerror}"]
    except ValueError as error:
        return None, [f"{flag}: is no {path.suffix[1:].upper()} ({error})"]
    if not isinstance(found, dict):
        return None, [f"{flag}: is no table of grid and layers"]
    problems = [
        f"{flag}: unknown key {key!r}; it has grid and layers" for key in found.keys() - _KEYS
    ]
    grid, layers = found.get("grid", ""), found.get("layers", {})
    if not isinstance(grid, str):
        problems.append(f'{flag}: grid is {grid!r}, not text such as "rows=2"')
        grid = ""
    if not isinstance(layers, Mapping):
        problems.append(f"{flag}: layers is {layers!r}, not a table of names and ways")
        layers = {}
    return _made(grid, list(layers.items()), problems, flag)


def _made(
    text: str, named: list[tuple[str, Any]], problems: list[str], flag: str
) -> tuple[LayerGrid | None, list[str]]:
    grid, found = parse_grid(text)
    problems = [line.replace("--grid", flag, 1) for line in found] + problems
    ways: list[tuple[str, Mesh | str]] = []
    for name, way in named:
        if any(name == known for known, _ in ways):
            problems.append(f"{flag}: {name!r} is given twice")
        elif way in (INPUTS, OUTPUTS):
            ways.append((name, way))
        else:
            own = parse_grid(way)[0] if isinstance(way, str) else None
            if own is None or own.batch != 1 or not way:
                problems.append(
                    f"{flag}: {name!r} has {way!r}, which is neither axes of {', '.join(_AXES)}, "
                    f"such as cout=2, nor {INPUTS} or {OUTPUTS}"
                )
            elif grid is not None and own.mesh.size != grid.mesh.size:
                problems.append(
                    f"{flag}: {name!r} has {way}, of {own.mesh.size} ranks, and the grid has "
                    f"{grid.mesh.size} without batch"
                )
            else:
                ways.append((name, own.mesh))
    if problems or grid is None:
        return None, problems
    return LayerGrid(batch=grid.batch, mesh=grid.mesh, layers=tuple(ways)), []


_AXES = ("rows", "cols", "cout", "cin")
