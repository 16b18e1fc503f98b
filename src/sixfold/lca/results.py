"""What sparse coding reports: `result.json`, lines of `metrics.jsonl`, and ``FILE.json``."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LearnFigures:
    """A learned dictionary, as rank 0 knows it."""

    steps: int  # updates
    images: int  # coded for them
    dictionary_sha256: str
    atoms: int
    positions: list[int]  # rows and columns of the code
    form: str  # "residual" or "gram"
    lane_width: int
    logical_shards: int
    updates_per_s: float | None  # without the first; None of a single one
    learning_s: float
    bad_files: list[str]


@dataclass(frozen=True, kw_only=True)
class LearnResult(LearnFigures):
    """`result.json` of `sixfold lca learn`."""

    engine: str
    workers: int
    grid: str | None = None
    restarts: int = 0
    startup_s: float = 0.0
    wall_s: float
    versions: dict[str, Any] = field(default_factory=dict)
    report: str = ""


@dataclass(frozen=True, kw_only=True)
class Update:
    """A line of `metrics.jsonl`: means over the batch of an update; None for what is not finite."""

    epoch: float
    energy: float | None
    sparsity: float | None  # part of the code that is zero
    error: float | None  # part of |x|^2 that the code does not explain
    code_steps: float
    certified: float | None  # part of the images whose certificate held
    dead_atoms: int
    revived: int
    lr: float
    images: int
    images_per_s: float | None
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class EncodeResult:
    """``FILE.json`` of `sixfold lca encode`; means over the images."""

    images: int
    energy: float
    error: float
    sparsity: float
    steps: float
    certified: float
    file: str
    run: str  # the dictionary
    data: str
    workers: int
    engine: str = ""
    wall_s: float = 0.0
    images_per_s: float = 0.0
    versions: dict[str, Any] = field(default_factory=dict)
