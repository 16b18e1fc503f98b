"""The report of a dictionary's learning: atoms, reconstructions, activations, curves."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sixfold.errors import UserError
from sixfold.files import write_atomically
from sixfold.report.axes import compact, percent, plain
from sixfold.report.furniture import render_page
from sixfold.run_directory import read_json, read_json_lines
from sixfold.tensor_file import verify

_MAX_ATOMS = 1024
_SHEET_PX = 900
"""Width of a sheet of atoms, about, in pixels of the file."""

_POINTS = 400
"""Points of a curve: more would not be seen."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve over updates.

    Attributes:
        title: what it shows.
        path: the SVG path in a box of 1000 by 300.
        low: text of the lowest value.
        high: text of the highest.
        last: text of the last.
    """

    title: str
    path: str
    low: str
    high: str
    last: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image beside its reconstruction: data URIs, and a line of figures."""

    image: str
    made: str
    caption: str


def write_page(run: Path) -> Path:
    """Write ``report.html`` of a run of `sixfold lca learn`, finished or not.

    Raises:
        RunError: if it cannot be written.
    """
    path = run / "report.html"
    write_atomically(path, render(run).encode())
    return path


def render(run: Path) -> str:
    """The page as text, from what the directory holds."""
    result, config = read_json(run / "result.json") or {}, read_json(run / "config.json") or {}
    lines = read_json_lines(run / "metrics.jsonl")
    dictionary, samples = (
        _tensors(run / "dictionary.safetensors"),
        _tensors(run / "samples.safetensors"),
    )
    atoms = dictionary.get("atoms")
    seen = samples.get("seen")
    return render_page(
        __package__,
        "lca.html",
        name=run.name,
        result=result,
        figures=_figures(result, lines),
        curves=_curves(lines),
        atoms=None if atoms is None else _sheet(atoms, seen),
        atom_count=0 if atoms is None else len(atoms),
        samples=_samples(samples),
        bars=_bars(samples.get("histogram")),
        top=plain(float(samples["histogram_top"][0])) if "histogram_top" in samples else "",
        usage=_bars(None if seen is None else np.sort(seen)[::-1][:200]),
        sections=_settings(config),
    )


def _tensors(path: Path) -> dict[str, Floats]:
    """What a safetensors file holds; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        verify(path)
        found: dict[str, Floats] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}): learn again with --overwrite") from error
    return found


def _figures(result: dict[str, Any], lines: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """The headline: name, value, detail."""
    last = lines[-1] if lines else {}
    found = []
    if last:
        found += [
            ("Energy", compact(last["energy"]), "of an image, at the last update"),
            ("Error", percent(last["error"], 1), "of the images' power is not explained"),
            ("Sparsity", percent(last["sparsity"], 1), "of the code is zero"),
            (
                "Certified",
                percent(last["certified"], 0),
                f"of the codes, after {last['code_steps']:.0f} steps",
            ),
        ]
    if result.get("updates_per_s"):
        found.append(("Updates/s", plain(result["updates_per_s"]), f"{result['workers']} workers"))
    return found


def _curves(lines: list[dict[str, Any]]) -> list[Curve]:
    wanted = (
        ("energy", "Energy of an image"),
        ("error", "Reconstruction error, |x - Da|² / |x|²"),
        ("sparsity", "Sparsity: share of the code that is zero"),
        ("code_steps", "Steps until the certificate held"),
    )
    found = []
    for name, title in wanted:
        values = np.array([line.get(name, math.nan) for line in lines], float)
        values = values[np.isfinite(values)]
        if len(values) > 1:
            found.append(_curve(title, values))
    return found


def _curve(title: str, values: NDArray[np.float64]) -> Curve:
    shown = np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))
    low, high = float(values.min()), float(values.max())
    span = high - low or 1.0
    points = [
        f"{1000 * index / (len(values) - 1):.1f},{290 - 280 * (values[index] - low) / span:.1f}"
        for index in shown
    ]
    return Curve(
        title=title,
        path="M" + " ".join(points),
        low=plain(low),
        high=plain(high),
        last=plain(float(values[-1])),
    )


def _bars(values: Floats | None) -> list[float]:
    """Heights in percent of the highest."""
    if values is None or not len(values) or float(values.max()) <= 0:
        return []
    return [round(100 * float(value) / float(values.max()), 2) for value in values]


def _sheet(atoms: Floats, seen: Floats | None) -> str:
    """All atoms side by side, the busiest first, each with its own range of grey or colour."""
    order = np.arange(len(atoms)) if seen is None else np.argsort(-seen, kind="stable")
    shown = [_pixels(atoms[index], symmetric=True) for index in order[:_MAX_ATOMS]]
    height, width = shown[0].shape[:2]
    columns = math.ceil(math.sqrt(len(shown) * height / width))
    rows = math.ceil(len(shown) / columns)
    scale = max(1, _SHEET_PX // (columns * (width + 1)))
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 255, np.uint8)
    for place, picture in enumerate(shown):
        top, left = place // columns * (height + 1) + 1, place % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = picture
    return _png(sheet, scale)


def _samples(tensors: dict[str, Floats]) -> list[Sample]:
    if not {"images", "reconstructions", "error", "active", "steps"} <= tensors.keys():
        return []
    found = []
    for index, (image, made) in enumerate(
        zip(tensors["images"], tensors["reconstructions"], strict=True)
    ):
        limits = float(image.min()), float(image.max())
        scale = max(1, 96 // max(image.shape[1:]))
        found.append(
            Sample(
                image=_png(_pixels(image, limits=limits), scale),
                made=_png(_pixels(made, limits=limits), scale),
                caption=f"{int(tensors['active'][index]):,} active, error "
                f"{percent(float(tensors['error'][index]), 1)}, "
                f"{int(tensors['steps'][index])} steps",
            )
        )
    return found


def _pixels(
    image: Floats, *, symmetric: bool = False, limits: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """(C, H, W) of any numbers as (H, W, 3) of 0 to 255; one row is shown as eight."""
    if image.shape[0] not in (1, 3):
        image = image.mean(0, keepdims=True)
    if symmetric:
        top = float(np.abs(image).max()) or 1.0
        limits = -top, top
    low, high = limits or (float(image.min()), float(image.max()))
    pixels = np.clip((image - low) / ((high - low) or 1.0), 0, 1)
    pixels = np.round(255 * pixels).astype(np.uint8).transpose(1, 2, 0)
    if pixels.shape[0] == 1:
        pixels = np.repeat(pixels, 8, 0)
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels


def _png(pixels: NDArray[np.uint8], scale: int) -> str:
    """A data URI of a PNG, enlarged by a whole factor."""
    large = np.repeat(np.repeat(pixels, scale, 0), scale, 1)
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _settings(config: dict[str, Any]) -> list[tuple[str, Sequence[tuple[str, str]]]]:
    return [
        (section, [(name.replace("_", "-"), str(value)) for name, value in values.items()])
        for section, values in config.items()
        if isinstance(values, dict)
    ]
