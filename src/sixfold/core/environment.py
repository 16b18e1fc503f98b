"""What Sixfold reads from the environment: all of it, in one place."""

import os
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HASH_SEED = {"PYTHONHASHSEED": "0"}
"""For ranks: the hash of a text, and so the order of a set of texts, is the same in all of them.

Source: docs.python.org, "Command line and environment"; Spark starts its workers so, too.
"""


def cache_directory() -> Path:
    """Where prepared data is kept between runs: `SIXFOLD_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("SIXFOLD_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("sixfold")


def settings_from_environment() -> dict[str, str]:
    """Settings given as ``SIXFOLD_<NAME>``, by name in lower case, such as ``batch_size``."""
    return {
        name.removeprefix("SIXFOLD_").lower(): value
        for name, value in os.environ.items()
        if name.startswith("SIXFOLD_") and value and name != "SIXFOLD_CACHE"
    }


def arithmetic_variables() -> dict[str, str]:
    """Variables that decide which kernels oneDNN and MKL choose, those that are set."""
    names = (
        "DNNL_MAX_CPU_ISA",
        "MKL_CBWR",
        "MKL_ENABLE_INSTRUCTIONS",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "ONEDNN_MAX_CPU_ISA",
    )
    return {name: os.environ[name] for name in names if os.environ.get(name)}


@contextmanager
def variables_set(values: Iterable[tuple[str, str | None]]) -> Iterator[None]:
    """While open, variables have these values, or, with None, are not set."""
    wanted = dict(values)
    before = {name: os.environ.get(name) for name in wanted}
    try:
        _set(wanted)
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def peak_resident_bytes() -> int:
    """The most memory that this process has held, libraries included."""
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return unit_bytes * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def settle_cublas() -> None:
    """Let cuBLAS give the same bits each time; to be called before it is used.

    Source: docs.nvidia.com/cuda/cublas, "Results reproducibility".
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
