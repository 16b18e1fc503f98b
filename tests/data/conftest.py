"""Small data sets on disk, and pools to prepare them with."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def random_picture(rows: int, columns: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise, so that no two pictures and no two channels are alike."""
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    values = np.random.default_rng(seed).integers(0, 256, (rows, columns, channels), np.uint8)
    return Image.frombytes(mode, (columns, rows), values.tobytes())


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """Makes a picture of noise: (rows, columns, mode, seed)."""
    return random_picture


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of lossless pictures from the number in each of its folders."""

    def write(
        counts: Mapping[str, int],
        *,
        size: tuple[int, int] = (6, 5),
        mode: str = "RGB",
        name: str = "set",
    ) -> Path:
        seed = 0
        for folder, count in counts.items():
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                seed += 1
                random_picture(*size, mode, seed).save(
                    tmp_path / name / folder / f"{number:04}.png"
                )
        return tmp_path / name

    return write


Pool = Callable[[Callable[[Any], Any], Sequence[Any], Callable[[int, Any], None]], list[Any]]


@pytest.fixture
def pool_of() -> Callable[[int], Pool]:
    """Makes a pool of so many processes."""

    def make(workers: int) -> Pool:
        def pool(
            function: Callable[[Any], Any],
            items: Sequence[Any],
            on_done: Callable[[int, Any], None],
        ) -> list[Any]:
            context = multiprocessing.get_context("forkserver")
            with concurrent.futures.ProcessPoolExecutor(workers, context) as executor:
                futures = {executor.submit(function, item): i for i, item in enumerate(items)}
                for future in concurrent.futures.as_completed(futures):
                    on_done(futures[future], future.result())
                return [future.result() for future in futures]

        return pool

    return make
