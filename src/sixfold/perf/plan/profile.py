"""A network's times on a machine, as a function of the work: between and beyond rehearsals."""

from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from sixfold.perf.plan.calibration import BUSY, Network, Point
from sixfold.perf.plan.links import Counts, per_shard_and_step
from sixfold.perf.plan.samples import interpolate

LEAST_REAL, MOST_REAL = 0.8, 2.0
"""Corrections beyond these are accidents of the measurement."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The rehearsals of a network, ready to be asked."""

    network: Network  # what was measured
    _sets: dict[tuple[str, int], dict[float, dict[int, Point]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for point in self.network.points:
            if not point.merge:
                by_shard = self._sets.setdefault((point.mesh, point.concurrency), {})
                by_shard.setdefault(_size(point), {})[point.shards] = point

    def knows(self, mesh: str) -> bool:
        """Whether a group was rehearsed."""
        return any(known == mesh for known, _ in self._sets)

    def rank_s(
        self, mesh: str, shard: float, shards: int, concurrency: int, spare: float = 0.0
    ) -> float:
        """Seconds of a rank's part in a step, exchanges left out.

        Args:
            mesh: the group.
            shard: samples of a logical shard.
            shards: how many of them the rank's group has.
            concurrency: ranks of the host that compute at the same time.
            spare: cores that are left over for a rank's other threads, a rank.
        """
        levels = sorted(level for known, level in self._sets if known == mesh)
        below = max((level for level in levels if level <= concurrency), default=levels[0])
        above = min((level for level in levels if level >= concurrency), default=levels[-1])
        low = self._at(self._sets[mesh, below], shard, shards, spare) * self._real(mesh, below)
        if above == below:
            return low
        high = self._at(self._sets[mesh, above], shard, shards, spare) * self._real(mesh, above)
        return low + (high - low) * (concurrency - below) / (above - below)

    def _at(
        self, sets: dict[float, dict[int, Point]], shard: float, shards: int, spare: float
    ) -> float:
        near = [size for size in sets if abs(size - shard) <= 0.02 * shard]
        chosen = near or sorted(sets)
        known = [(size, _steps(sets[size], shards, spare)) for size in chosen]
        return known[0][1] if near else interpolate(shard, known)

    def _real(self, mesh: str, concurrency: int) -> float:
        """How many times what was rehearsed a rank's own part takes among real ranks."""
        ratios = [
            point.real
            for by_shards in self._sets[mesh, concurrency].values()
            for point in by_shards.values()
            if point.real
        ]
        if not ratios or self.network.busyness() > BUSY:  # the clock would tell of other programs
            return 1.0
        return min(max(median(ratios), LEAST_REAL), MOST_REAL)

    def contention(self, shard: float) -> float:
        """How much slower a shard is with all cores busy than alone; 1 if that is not known."""
        levels = sorted(level for mesh, level in self._sets if mesh == "")
        if len(levels) < 2:
            return 1.0
        busy, quiet = (self.rank_s("", shard, 4, level) for level in (levels[-1], levels[0]))
        return busy / quiet

    def update_s(self, mesh: str = "") -> float:
        """Seconds of the optimizer's update, of the whole network or of a rank's part."""
        found = [point.update_s for point in self.network.points if point.mesh == mesh]
        return sorted(found)[len(found) // 2] if found else 0.0

    def peak_bytes(self, mesh: str, shard: float) -> int:
        """Most memory that a rank held that computed shards of about this size."""
        found = [
            (abs(_size(point) - shard), -point.peak_bytes)
            for point in self.network.points
            if point.mesh == mesh and not point.merge
        ]
        if not found:
            return 0
        nearest = min(distance for distance, _ in found)
        return -min(peak for distance, peak in found if distance <= nearest + 1e-9)

    def payload_bytes(self, mesh: str) -> int:
        """Size of what the shards of a rank of the group add up."""
        found = [p.payload_bytes for p in self.network.points if p.mesh == mesh and not p.merge]
        return max(found)

    def merge(self) -> Point | None:
        """The rehearsal of a merge."""
        return next((point for point in self.network.points if point.merge), None)

    def mesh_exchanges(self, mesh: str) -> tuple[float, Counts, Counts]:
        """Samples of the shard that was rehearsed, and exchanges once a shard and once a step."""
        by_shards: dict[int, Point] = {}
        for point in self.network.points:
            if point.mesh == mesh and not point.merge and mesh:
                by_shards[point.shards] = point
        one, two = by_shards[min(by_shards)], by_shards[max(by_shards)]
        if one is two:
            return _size(one), Counter(one.exchanges), Counter()
        return _size(one), *per_shard_and_step(one.exchanges, two.exchanges)


def _size(point: Point) -> float:
    return point.samples / point.shards


def _steps(points: dict[int, Point], shards: int, spare: float) -> float:
    """Seconds of a step of so many shards, from those of a few and of one.

    Between the two, and below, a straight line; above, every shard costs what it costs there. What
    a step costs besides its shards is what one shard's step takes longer than a shard.
    """
    took = {
        count: point.step_s + max(1.0 - spare, 0.0) * point.behind_s
        for count, point in points.items()
    }
    few, many = min(took), max(took)
    if few == many:
        fixed = min(points[few].update_s, took[few])
        return fixed + (took[few] - fixed) * shards / few
    whole = took[many] / many
    each = (took[many] - took[few]) / (many - few)
    each = min(max(each, 0.6 * whole), whole)
    return took[many] + (shards - many) * each
