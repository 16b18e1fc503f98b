"""What a profile consists of: what each rank has measured, and the figures of `profile.json`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sixfold.core.run_directory import typed
from sixfold.perf.profile.limits import Machine
from sixfold.perf.profile.utilisation import Use

DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True, kw_only=True)
class FunctionTime:
    """An operator of torch, or a kernel of ours, within a layer; "" for what is left of it."""

    function: str
    direction: str  # "forward", "backward" or "around"
    seconds: float
    calls: int


@dataclass(frozen=True, kw_only=True)
class LayerTimes:
    """Seconds in layers: forward, backward, and around them (layout, fold)."""

    forward_s: float = 0.0
    backward_s: float = 0.0
    around_s: float = 0.0

    def seconds(self, direction: str) -> float:
        found: float = getattr(self, f"{direction}_s")
        return found


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One direction of a layer against the roofline."""

    limit_s: float  # the least time that the machine would need
    share: float | None  # limit over time
    flops_per_s: float | None
    bytes_per_s: float | None
    intensity: float | None  # operations per byte
    bandwidth: float  # of copies of this size, bytes a second
    bound: str  # "compute" or "memory"


@dataclass(frozen=True, kw_only=True)
class Layer(LayerTimes):
    """A layer: its times, what it costs by arithmetic, and how near it is to the roofline.

    Ranks leave the roofline out. What is not `counted` has no costs.
    """

    name: str
    kind: str = ""  # the module's class, or the function
    functions: list[FunctionTime] = field(default_factory=list)
    counted: bool = False
    parameters: int = 0
    input_shapes: list[list[int]] = field(default_factory=list)
    output_shape: list[int] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # counted as element by element
    forward_flops: int = 0
    backward_flops: int = 0
    forward_bytes: int = 0
    backward_bytes: int = 0
    kept_bytes: int = 0
    forward: Pass | None = None
    backward: Pass | None = None

    def place(self, direction: str) -> Pass | None:
        """Where one direction stands."""
        return self.forward if direction == "forward" else self.backward


COSTS = ("forward_flops", "backward_flops", "forward_bytes", "backward_bytes", "kept_bytes")


@dataclass(frozen=True, kw_only=True)
class WatchedStep(LayerTimes):
    """A step of a profile on one rank; seconds in layers only where these were timed."""

    step: int
    kind: str  # as of `rank.kinds_of_steps`
    begin: float  # Unix seconds
    whole_s: float
    samples: int
    data_s: float
    compute_s: float
    communication_s: float
    waiting_s: float
    update_s: float


@dataclass(frozen=True, kw_only=True)
class WatchedExchanges:
    """The exchanges of a step whose layers were timed, and its layers."""

    step: int
    exchanges: list[list[Any]]  # as of `Exchanged.as_plain`
    layers: list[tuple[str, float, float]]  # name with its pass, begin, end


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a step of a rank holds, accounted by kind, and the peaks that were measured."""

    rank: int
    weights_bytes: int
    buffers_bytes: int
    optimizer_bytes: int
    gradients_bytes: int
    activations_bytes: int
    step_peak_bytes: int
    resident_before_bytes: int
    resident_peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class RankFigures:
    """`profile/rank-*.json`: what one rank has measured."""

    rank: int
    host: str
    steps: list[WatchedStep]
    shards: dict[str, int]  # how many of each size in the last step
    memory: Memory
    layers: list[Layer]
    exchanges: list[WatchedExchanges] = field(default_factory=list)
    spans: list[tuple[str, str, str, float, float]] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[WatchedStep]:
        """The steps of one kind."""
        return [step for step in self.steps if step.kind == kind]


@dataclass(frozen=True, kw_only=True)
class StepTimes(LayerTimes):
    """Where a step's time goes; means over ranks.

    What divided networks exchange in the middle of a layer is in the layer's time, and not taken
    away twice.
    """

    plain_s: float  # the median step as training makes it
    timing_costs_s: float  # by which the median of those whose layers were timed is longer
    clock_s: float  # the middle one of these, of which the parts below are
    data_s: float
    communication_s: float
    waiting_s: float
    update_s: float
    unattributed_s: float  # what is left
    samples: float

    def part(self, name: str) -> float:
        """Seconds of a part, by its name without the unit."""
        found: float = getattr(self, f"{name}_s")
        return found


@dataclass(frozen=True, kw_only=True)
class Totals(LayerTimes):
    """All layers together."""

    parameters: int
    ranks: int
    forward_flops: int
    backward_flops: int
    forward_bytes: int
    backward_bytes: int
    kept_bytes: int
    forward_limit_s: float
    backward_limit_s: float
    forward_share: float | None
    backward_share: float | None
    forward_flops_per_s: float | None
    backward_flops_per_s: float | None


@dataclass(frozen=True, kw_only=True)
class RankShare:
    """Work of a rank on the critical path."""

    rank: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class LayerShare:
    """A layer on the critical path."""

    layer: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CriticalPath:
    """What the critical path of a step consists of."""

    step: int = 0
    seconds: float
    work_s: list[RankShare]
    transfer_s: float
    handovers: int
    layers: list[LayerShare]  # the longest first


@dataclass(frozen=True, kw_only=True)
class Profile:
    """`profile.json`."""

    kind: str = ""  # "profile", "run" (only read) or "beside" (several engines)
    path: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    engine: str = ""
    workers: int | None = None
    images_per_s: float | None = None
    layers: list[Layer] = field(default_factory=list)
    step: StepTimes | None = None
    memory: list[Memory] = field(default_factory=list)
    totals: Totals | None = None
    busy_cores: int = 1  # ranks that compute at once on one host
    peak_flops: float = 0.0
    critical_path: CriticalPath | None = None
    overlap: float | None = None  # 0 to 1
    utilisation: list[Use] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    startup: dict[str, float] = field(default_factory=dict)
    trace: str = ""
    machine: Machine | None = None
    versions: dict[str, Any] = field(default_factory=dict)
    sides: dict[str, "Profile"] = field(default_factory=dict)  # by engine
    failed: str = ""  # why this engine could not be measured

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Profile":
        """From what `profile.json` holds."""
        return typed(cls, plain)

    def as_plain(self) -> dict[str, Any]:
        """As `profile.json` holds it: fields that say nothing are left out."""
        found = {name: value for name, value in vars(self).items() if value not in (None, "", {})}
        if self.step is None:
            found = {n: v for n, v in found.items() if n not in _OF_LAYERS}
        plain = {name: _plain(value) for name, value in found.items() if name != "sides"}
        sides = {name: side.as_plain() for name, side in self.sides.items()}
        return plain | ({"sides": sides} if sides else {})


_OF_LAYERS = ("layers", "memory", "busy_cores", "peak_flops")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(one) for one in value] if isinstance(value, list) else value
