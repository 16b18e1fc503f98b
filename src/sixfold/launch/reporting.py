"""Writing a run's report, with pictures where its data are at hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sixfold.config import DataConfig
from sixfold.errors import SixfoldError, UserError
from sixfold.files import write_json
from sixfold.run_directory import RunDirectory, read_json

Images = Callable[[Sequence[int]], NDArray[np.uint8]]


def test_images(resolved: DataConfig) -> Images:
    """Gives the pictures of test images by their indices.

    Args:
        resolved: data as `sixfold.data.resolve` gives it.
    """
    from sixfold.data import open_data

    opened = open_data(resolved)
    return lambda indices: opened.test.images(np.asarray(indices, np.int64))


def tell_failure(directory: RunDirectory, error: BaseException) -> None:
    """Keep why a run ended without a result, and say so in its report.

    Whatever goes wrong here (a full disk may be what ended the run) leaves `error` the one that
    is told.
    """
    from sixfold.report import write_report

    stopped = isinstance(error, KeyboardInterrupt)
    lines = ["stopped by Ctrl-C"] if stopped else str(error).splitlines()
    with contextlib.suppress(OSError, SixfoldError):
        write_json(directory.file("failure.json"), {"time": time.time(), "lines": lines})
        if not stopped:
            write_report(directory.path)


def rewrite_report(run: Path) -> Path:
    """Write the report of a run again, finished or not.

    Raises:
        UserError: if there is no run.
    """
    from sixfold.report import write_report

    run = run.expanduser().absolute()
    config = read_json(run / "config.json")
    if config is None:
        raise UserError(f"{run} is no run directory: it holds no config.json")
    if "compression" in config:
        return _rewrite_compression(run)
    if "sweep" in config or "delay" in config:
        return _rewrite_sweep(run, config)
    if "distortion" in config:
        raise UserError(f"{run} holds an evaluation: `sixfold evaluate` writes its report anew")
    if "dictionary" in config:
        from sixfold.report.lca import write_page

        return write_page(run)
    return write_report(run, images=_images_of(config))


def _rewrite_compression(run: Path) -> Path:
    from sixfold.report.compression import write_page

    result = read_json(run / "result.json")
    if result is None:
        raise UserError(f"{run} holds a compression that is not finished: go on with --resume")
    path = run / "report.html"
    write_page(path, result)
    return path


def _rewrite_sweep(run: Path, config: dict[str, Any]) -> Path:
    from sixfold.sweep.reporting import write_report as write_sweep_report

    result = read_json(run / "result.json")
    if result is None:
        raise UserError(f"{run} holds a sweep that is not finished: go on with --resume")
    path = run / "report.html"
    write_sweep_report(path, config, result)
    return path


def _images_of(config: dict[str, Any]) -> Images | None:
    """The run's test images, or None where its data can no longer be opened."""
    from sixfold.data import resolve

    try:
        return test_images(resolve(DataConfig(**config["data"])))
    except (SixfoldError, KeyError, TypeError):
        return None
