"""The commands and numbers of docs/kernels.md."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from sixfold.studies.convolution import Geometry
from sixfold.studies.convolution.im2col import im2col_bytes

PAGE = (Path(__file__).parents[3] / "docs" / "kernels.md").read_text(encoding="utf-8")
LAYERS = {
    "`slide`": Geometry.of((100, 3, 32, 32), (32, 3, 5, 5), padding=2),
    "`lenet5` second": Geometry.of((100, 20, 12, 12), (50, 20, 5, 5)),
    "`cells` first": Geometry.of((100, 1, 256, 256), (32, 1, 11, 11), stride=3, padding=2),
    "`vgg16` second": Geometry.of((100, 64, 224, 224), (64, 64, 3, 3), padding=1),
}


def output(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()


def test_every_command_runs_and_prints_numbers_of_the_page() -> None:
    steps, memory, matrices = map(output, re.findall(r'python -c "\n(.*?)"\n```', PAGE, re.DOTALL))
    for line in steps.splitlines()[:7]:
        loop, moves = line.split(maxsplit=1)
        assert f"| `{loop}` | {' | '.join(re.findall(r'[0-9]+', moves))} |" in PAGE
    assert "(25.00 times; 307,200 an image), measured peak 32," in memory
    for line in matrices.splitlines():
        elements = int(line.split(") ")[1].split()[0])
        assert f"{elements:,}" in PAGE


@pytest.mark.parametrize("layer", LAYERS)
def test_the_memory_of_im2col_is_the_formulas(layer: str) -> None:
    memory = im2col_bytes(LAYERS[layer])
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {layer}"))
    images, columns = memory.input_bytes / 1e6, memory.column_bytes / 1e6
    assert row.endswith(f"| {images:.1f} MB | {columns:.1f} MB | {memory.ratio:.2f} |")
