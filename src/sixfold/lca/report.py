"""The report of a dictionary's learning: atoms, reconstructions, activations, curves."""

import math
import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sixfold.core.errors import UserError
from sixfold.core.files import write_atomically
from sixfold.core.html.axes import Format, compact, linear, percent, plain
from sixfold.core.html.charts import Chart, Series
from sixfold.core.html.page import Figure, Page, Picture, Pictures, Section, configuration, pairs
from sixfold.core.html.pictures import png
from sixfold.core.html.series import spread
from sixfold.core.run_directory import read_json, read_json_lines, typed
from sixfold.core.tensor_file import verify
from sixfold.lca.config import LcaLearnConfig
from sixfold.lca.results import LearnResult, Update

_MAX_ATOMS = 1024
_SHEET_PX = 900  # width of a sheet of atoms, about, in pixels of the file
_POINTS = 400  # points of a curve: more would not be seen
Floats = NDArray[np.floating[Any]]


def _percent(value: float) -> str:
    return percent(value, 2)


_CURVES: tuple[tuple[str, str, Format], ...] = (
    ("energy", "Energy of an image", compact),
    ("error", "Reconstruction error, |x - Da|² / |x|²", _percent),
    ("sparsity", "Sparsity: share of the code that is zero", _percent),
    ("code_steps", "Steps until the certificate held", plain),
)


def write_page(run: pathlib.Path) -> pathlib.Path:
    """Write ``report.html`` of a run of `sixfold lca learn`, finished or not."""
    path = run / "report.html"
    write_atomically(path, render(run).encode())
    return path


def render(run: pathlib.Path) -> str:
    """The page as text, from what the directory holds."""
    figures, config = read_json(run / "result.json"), read_json(run / "config.json") or {}
    result = typed(LearnResult, figures) if figures else None
    updates = typed(list[Update], read_json_lines(run / "metrics.jsonl"))
    samples = _tensors(run / "samples.safetensors")
    atoms = _tensors(run / "dictionary.safetensors").get("atoms")
    seen = samples.get("seen")
    sheet, shown = [], _samples(samples)
    if atoms is not None:
        image = Picture(uri=_sheet(atoms, seen), alt="sheet of the dictionary's atoms", small=True)
        sheet = [Pictures(entries=[([image], [])], css="atoms")]
    subtitle, hashes = "", []
    if result is not None:
        subtitle = (
            f"{result.atoms} atoms, {' x '.join(map(str, result.positions))} positions, "
            f"{result.form} form; {result.steps} updates"
        )
        hashes = [("SHA-256", result.dictionary_sha256)]
    return Page(
        title=f"{run.name} · Sixfold",
        eyebrow="Sixfold sparse coding report",
        heading=run.name,
        state="finished" if result else "not finished",
        good=result is not None,
        subtitle=subtitle,
        figures=_figures(result, updates),
        sections=[
            Section(
                id="atoms",
                title="Atoms",
                lead=f"All {0 if atoms is None else len(atoms)}, the busiest first; each scaled by "
                "itself, grey (or no colour) is zero.",
                blocks=sheet,
                frame=False,
            ),
            Section(
                id="reconstructions",
                title="Images and reconstructions",
                lead="As prepared for coding, and what the code makes of them, in the same range.",
                blocks=[Pictures(entries=shown, css="pairs")] if shown else [],
                frame=False,
            ),
            Section(id="learning", title="Learning", css="grid", blocks=_curves(updates)),
            Section(id="activations", title="Activations", css="grid", blocks=_bars(samples, seen)),
            configuration(
                config,
                LcaLearnConfig,
                sorted(result.versions.items()) if result else [],
                pairs(hashes, "Dictionary"),
            ),
        ],
        files="metrics.jsonl, result.json and dictionary.safetensors next to it hold every figure.",
    ).html()


def _tensors(path: pathlib.Path) -> dict[str, Floats]:
    if not path.is_file():
        return {}
    try:
        verify(path)
        found: dict[str, Floats] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}): learn again with --overwrite") from error
    return found


def _figures(result: LearnResult | None, updates: list[Update]) -> list[Figure]:
    found = []
    if updates:
        last = updates[-1]
        steps = f"of the codes, after {last.code_steps:.0f} steps"
        found = [
            ("Energy", compact(last.energy or 0), "of an image, at the last update"),
            ("Error", percent(last.error or 0, 1), "of the images' power is not explained"),
            ("Sparsity", percent(last.sparsity or 0, 1), "of the code is zero"),
            ("Certified", percent(last.certified or 0, 0), steps),
        ]
    if result is not None and result.updates_per_s:
        found.append(("Updates/s", plain(result.updates_per_s), f"{result.workers} workers"))
    return found


def _curves(updates: list[Update]) -> list[Chart]:
    found = []
    for name, title, write in _CURVES:
        pairs = [(update.step, getattr(update, name)) for update in updates]
        known = np.array([pair for pair in pairs if pair[1] is not None], float).reshape(-1, 2)
        known = known[np.isfinite(known).all(1)]
        if len(known) > 1:
            steps, values = known[spread(len(known), _POINTS)].T
            line = Series(name="", x=steps, y=values)
            found.append(_chart(name, title, line, x_label="update", write=write))
    return found


def _bars(samples: dict[str, Floats], seen: Floats | None) -> list[Chart]:
    """How large activations are, and how often each atom is active."""
    found = []
    counts = samples.get("histogram")
    if counts is not None and "histogram_top" in samples and float(counts.sum()) > 0:
        edges = np.linspace(0.0, float(samples["histogram_top"][0]), len(counts) + 1)
        bars = _steps(edges, counts)
        note = "entries of the codes that are not zero, in the images above"
        found.append(_chart("sizes", "How large activations are", bars, x_label="|a|", note=note))
    if seen is not None and float(np.max(seen)) > 0:
        bars = _steps(np.arange(len(seen) + 1, dtype=np.float64), np.sort(seen)[::-1])
        note = "activations in the last update, the busiest atom first"
        title = "How often each atom is active"
        found.append(_chart("usage", title, bars, x_label="atom", note=note))
    return found


def _steps(edges: Floats, counts: Floats) -> Series:
    """A histogram as a filled line of steps."""
    return Series(name="", x=edges, y=counts, low=0 * counts, colour="compute", kind="area")


def _chart(
    name: str, title: str, line: Series, *, x_label: str, write: Format = plain, note: str = ""
) -> Chart:
    places, values = np.asarray(line.x, float), line.values
    low, high = float(np.min(values)), float(np.max(values))
    return Chart(
        id=name,
        title=title,
        note=note,
        summary=f"{title}: from {write(low)} to {write(high)}, at the end "
        f"{write(float(values[-1]))}.",
        x=linear(float(places[0]), float(places[-1]), compact, snug=True),
        y=linear(0.0 if line.kind == "area" else low, high, write),
        x_label=x_label,
        series=[line],
        write=write,
        head=lambda at: f"{x_label} {plain(at)}",
    )


def _sheet(atoms: Floats, seen: Floats | None) -> str:
    """All atoms side by side, the busiest first, each with its own range of grey or colour."""
    order = np.arange(len(atoms)) if seen is None else np.argsort(-seen, kind="stable")
    atoms = _grey_or_colour(atoms)[order[:_MAX_ATOMS]]
    tops = np.abs(atoms).max((1, 2, 3))
    shown = [_pixels(atom, -top, top) for atom, top in zip(atoms, tops.tolist(), strict=True)]
    height, width = shown[0].shape[:2]
    columns = math.ceil(math.sqrt(len(shown) * height / width))
    rows = math.ceil(len(shown) / columns)
    scale = max(1, _SHEET_PX // (columns * (width + 1)))
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 255, np.uint8)
    for place, picture in enumerate(shown):
        top, left = place // columns * (height + 1) + 1, place % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = picture
    return _png(sheet, scale)


def _samples(tensors: dict[str, Floats]) -> list[tuple[list[Picture], list[tuple[str, str]]]]:
    if not {"images", "reconstructions", "error", "active", "steps"} <= tensors.keys():
        return []
    found = []
    for index, image in enumerate(tensors["images"]):
        low, high = float(image.min()), float(image.max())
        scale = max(1, 96 // max(image.shape[1:]))
        both = [
            Picture(uri=_png(_pixels(pixels, low, high), scale), alt=alt, small=True)
            for pixels, alt in (
                (image, "image"),
                (tensors["reconstructions"][index], "its reconstruction"),
            )
        ]
        caption = (
            f"{int(tensors['active'][index]):,} active, error "
            f"{percent(float(tensors['error'][index]), 1)}, {int(tensors['steps'][index])} steps"
        )
        found.append((both, [(caption, "from")]))
    return found


def _pixels(image: Floats, low: float, high: float) -> NDArray[np.uint8]:
    """(C, H, W) of any numbers as (H, W, 3) of 0 to 255; one row is shown as eight."""
    image = _grey_or_colour(image)
    parts = np.clip((image - low) / (high - low), 0, 1) if high > low else 0.5 + 0 * image
    pixels = np.round(255 * parts).astype(np.uint8).transpose(1, 2, 0)
    if pixels.shape[0] == 1:
        pixels = np.repeat(pixels, 8, 0)
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels


def _grey_or_colour(images: Floats) -> Floats:
    """(..., C, H, W) with one or three channels."""
    return images if images.shape[-3] in (1, 3) else images.mean(-3, keepdims=True)


def _png(pixels: NDArray[np.uint8], scale: int) -> str:
    return png(Image.fromarray(np.repeat(np.repeat(pixels, scale, 0), scale, 1)))
