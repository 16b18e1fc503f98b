"""Writing a run's report, with pictures where its data are at hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import SixfoldError
from sixfold.core.files import write_json
from sixfold.core.run_directory import RunDirectory
from sixfold.data.config import DataConfig

Images = Callable[[Sequence[int]], NDArray[np.uint8]]


def test_images(resolved: DataConfig) -> Images:
    """Gives the pictures of test images by their indices.

    Args:
        resolved: data as `sixfold.data.resolve` gives it.
    """
    from sixfold.data import open_data

    opened = open_data(resolved)
    return lambda indices: opened.test.images(np.asarray(indices, np.int64))


def report_failure(directory: RunDirectory, error: BaseException) -> None:
    """Keep why a run ended without a result, and say so in its report.

    Whatever goes wrong here (a full disk may be what ended the run) leaves `error` the one that
    is told.
    """
    from sixfold.training.report import write_report

    stopped = isinstance(error, KeyboardInterrupt)
    lines = ["stopped by Ctrl-C"] if stopped else str(error).splitlines()
    with contextlib.suppress(OSError, SixfoldError):
        write_json(directory.file("failure.json"), {"time": time.time(), "lines": lines})
        if not stopped:
            write_report(directory.path)
