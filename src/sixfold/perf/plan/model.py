"""The step model: from a calibration to the time of a step, for every strategy and grid.

With L logical shards of s samples, n ranks, T ranks a group and b = n / T groups:

    own      = rank(group, s, ceil(L / b), ranks of a host)       rehearsed, interpolated
    crowding = max(1, ranks of a host / cores of a host)
    slowest  = 1 + (quantile 0.5^(1/n) of a step's spread - 1) x meetings^evening
    batch    = own x crowding x slowest + exchanges

Ranks of sync meet once a step, those of local_sgd once in H steps, those of a group at each
exchange; means of k steps differ by k^-evening of what steps do (1/2 if they are independent).

sync and model_parallel add the all-reduce of gradients, groups their halos and channels as
rehearsed. local_sgd has shards of its own B / n images and 1/H of a merge. hogwild makes n batches
at a time, and a param_server's workers as many as processors, server and wire allow.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sixfold.distributed.logical_shards import shard_count
from sixfold.perf.plan.calibration import Calibration
from sixfold.perf.plan.candidates import Candidate, Prediction, Workload
from sixfold.perf.plan.links import Links, all_reduce_phases, links_of, summands
from sixfold.perf.plan.profile import Profile

CHANCES = np.linspace(0.025, 0.975, 20)
"""At which the slowest rank's time is averaged."""


class Parts(NamedTuple):
    """A batch's time, before start-up and memory."""

    own_s: float
    """A rank's own work, its cores shared out."""
    exchange_s: float
    sent_bytes: float
    among: int
    """Ranks whose slowest everybody waits for."""
    meetings: float = 1.0
    """Times of waiting a step. Where there is less than one, spreads even out between two; where
    there are many, each waits for the slowest at that time, who is not always the same."""
    batches: float = 1.0
    """Batches that are made in that time."""
    idle: int = 0
    limit: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Predicts the ways to train one network on one machine."""

    calibration: Calibration  # of the machine
    profile: Profile  # of the network
    work: Workload  # what is trained
    # how ranks reach each other, by their number; the machine's own if absent
    links: Callable[[int], Links] | None = None

    def predict(self, candidate: Candidate) -> Prediction:
        """What one way would take; a KeyError if its group was not rehearsed."""
        parts = {
            "sync": self._sync,
            "model_parallel": self._grid,
            "local_sgd": self._local_sgd,
            "hogwild": self._hogwild,
            "param_server": self._param_server,
        }[candidate.strategy](candidate)
        return self._finish(candidate, parts)

    def knows(self, candidate: Candidate) -> bool:
        """Whether everything was rehearsed that a prediction needs."""
        if candidate.strategy == "param_server":
            return bool(self.profile.network.server)
        if candidate.strategy == "local_sgd" and self.profile.merge() is None:
            return False
        return self.profile.knows(candidate.mesh)

    # The strategies.

    def _sync(self, candidate: Candidate) -> Parts:
        n, (count, shard) = candidate.workers, self.shards(self.work.batch_size)
        active = min(n, count)
        own = self._own("", shard, -(-count // active), n)
        exchange_s, sent = self._all_reduce(self.profile.network.payload_bytes, count, n, n)
        return Parts(own, exchange_s, sent, active, idle=n - active)

    def _grid(self, candidate: Candidate) -> Parts:
        mesh, n, groups = candidate.mesh, candidate.workers, candidate.grid.batch
        if not mesh:
            return self._sync(candidate)
        count, shard = self.shards(self.work.batch_size)
        active = min(groups, count)
        own_shards = -(-count // active)
        own = self._own(mesh, shard, own_shards, n)
        rehearsed, per_shard, per_step = self.profile.mesh_exchanges(mesh)
        links, crowd = self._links(n), self._crowding(n)
        exchange_s = sent = meetings = 0.0
        for counter, scale, times in (
            (per_shard, shard / rehearsed, own_shards),
            (per_step, 1.0, 1),
        ):
            for (out, into), repeats in counter.items():
                if not (out or into):
                    continue
                largest = scale * max(*out, *into, 0)
                peers = max(len(out), len(into))
                took = float(links.exchange_s(peers, largest)) * crowd
                exchange_s += took * repeats * times
                meetings += repeats * times
                sent += scale * sum(out) * repeats * times
        payload = self.profile.payload_bytes(mesh)
        gradient_s, gradient_bytes = self._all_reduce(payload, count, groups, n)
        if self._mirrors(candidate):  # the gradient goes to the next rank, and is used there too
            own += self.profile.update_s(mesh) * crowd
            exchange_s += float(links.exchange_s(1, payload)) * crowd
            sent += payload
        return Parts(
            own,
            exchange_s + gradient_s,
            sent + gradient_bytes,
            n,
            meetings=max(meetings, 1.0),
            idle=(groups - active) * candidate.grid.mesh.size,
        )

    def _local_sgd(self, candidate: Candidate) -> Parts:
        n, every = candidate.workers, self.work.local_steps
        count, shard = self.shards(-(-self.work.batch_size // n))
        own = self._own("", shard, count, n)
        merge = self.profile.merge()
        merge_s = exchange_s = sent = 0.0
        if merge is not None and n > 1:
            merge_s = merge.step_s * self._crowding(n)
            links = self._links(n)
            for number, (out, into) in enumerate(merge.exchanges):
                if out or into:
                    # Rehearsed by two workers: each of n sends slices of 1/n, to n - 1 others.
                    each = max(*out, *into, 0) * 2 / n
                    exchange_s += float(links.exchange_s(n - 1, each, follows=number > 0))
                    sent += each * (n - 1)
            exchange_s *= self._crowding(n)
        return Parts(own + merge_s / every, exchange_s / every, sent / every, n, meetings=1 / every)

    def _hogwild(self, candidate: Candidate) -> Parts:
        n, (count, shard) = candidate.workers, self.shards(self.work.batch_size)
        own = self._own("", shard, count, n)
        network, crowd = self.profile.network, self._crowding(n)
        if n > 1:
            own += max(network.shared_update_s - network.update_s, 0.0) * crowd
        exchange_s, sent = self._host_merge()
        every = self.work.merge_every
        return Parts(own, exchange_s / every, sent / every, 1, meetings=1 / every, batches=n)

    def _param_server(self, candidate: Candidate) -> Parts:
        n, (count, shard) = candidate.workers, self.shards(self.work.batch_size)
        machine, server = self.calibration.machine, self.profile.network.server
        busy = min(n, machine.slots)
        own = self.profile.rank_s("", shard, count, self._together(busy), self._spare(n + 1))
        own = max(own - self.profile.update_s(), 0.0)
        sent = server["moved_bytes"] / 2
        # What a round trip takes is work of worker, server and kernel, one after the other. The
        # workers overlap as far as there are cores; a server answers one at a time, and its host
        # has one link.
        round_s, answer_s = server["round_s"], server["round_s"] / 2
        link = self._links(n).remote
        if link is not None:
            round_s += float(link.first(sent) + link.next(sent))
            answer_s = max(answer_s, sent / link.bytes_per_s)
        answer_s /= self.work.servers
        batch_s = max((own + round_s) / busy, answer_s)
        limit = "the servers" if answer_s >= batch_s else ""
        exchange_s = batch_s - own / busy
        return Parts(own / busy, exchange_s, sent, 1, meetings=1 / 8, limit=limit)

    def _host_merge(self) -> tuple[float, float]:
        """Seconds and bytes of hogwild's merge, in which the hosts' first ranks take part."""
        hosts, network = self.calibration.machine.hosts, self.profile.network
        if hosts == 1:
            return 0.0, 0.0
        links = dataclasses.replace(self._links(hosts), per_host=1)
        each = network.parameter_bytes * (1 + network.slots) / hosts
        took = sum(float(links.exchange_s(hosts - 1, each, follows=k > 0)) for k in range(2))
        return took, 2 * each * (hosts - 1)

    # What they share.

    def shards(self, batch: int) -> tuple[int, float]:
        """L of a batch, and the samples of a shard."""
        count = shard_count(batch, batch_norm=self.work.batch_norm, wanted=self.work.shards)
        return count, batch / count

    def _together(self, workers: int) -> int:
        """Ranks of a host that compute at the same time."""
        machine = self.calibration.machine
        per_host = -(-workers // machine.hosts)
        return max(min(per_host, machine.slots // machine.hosts), 1)

    def _spare(self, workers: int) -> float:
        """Cores that are left over, a rank."""
        return max(self.calibration.machine.slots / workers - 1.0, 0.0)

    def _crowding(self, workers: int) -> float:
        """How many ranks share a core."""
        return max(1.0, workers / self.calibration.machine.slots)

    def _links(self, workers: int) -> Links:
        if self.links is not None:
            return self.links(workers)
        return links_of(self.calibration.machine, workers)

    def _own(self, mesh: str, shard: float, shards: int, workers: int) -> float:
        together, spare = self._together(workers), self._spare(workers)
        took = self.profile.rank_s(mesh, shard, shards, together, spare)
        return took * self._crowding(workers)

    def _all_reduce(
        self, payload_bytes: int, count: int, ranks: int, workers: int
    ) -> tuple[float, float]:
        """Seconds, and bytes that the busiest rank sends."""
        if ranks == 1:
            return 0.0, 0.0
        links, took, sent = self._links(workers), 0.0, 0.0
        crowded = self._crowding(workers) > 1 and not self.calibration.machine.crowded
        phases = all_reduce_phases(payload_bytes, count, ranks)
        for number, phase in enumerate(phases):
            took += float(links.exchange_s(phase.peers, phase.each_bytes, follows=number > 0))
            sent += phase.sent_bytes
        part = payload_bytes / (ranks if len(phases) > 1 else 1)
        took += sum(summands(count, ranks)) * part / self.calibration.machine.adding_bytes_per_s
        return took * (self._crowding(workers) if crowded else 1.0), sent

    def _finish(self, candidate: Candidate, parts: Parts) -> Prediction:
        machine, work = self.calibration.machine, self.work
        n, spread = candidate.workers, self.profile.network.spread
        often: float = parts.meetings**spread.evening
        middle = float(spread.slowest(parts.among))

        def slowest(chance: float) -> float:
            around = float(spread.slowest(parts.among, chance)) - middle
            return 1.0 + (middle - 1.0) * often + around * min(often, 1.0)

        def batch(chance: float) -> float:
            return (parts.own_s * slowest(chance) + parts.exchange_s) / parts.batches

        batch_s = batch(0.5)
        mean_s = float(np.mean([batch(chance) for chance in CHANCES]))
        startup_s = machine.startup_s + machine.opening_s
        per_host = -(-n // machine.hosts)
        memory = self._memory(candidate)
        waiting_s = parts.own_s * (slowest(0.5) - 1.0) / parts.batches
        prediction = Prediction(
            candidate=candidate,
            batch_s=batch_s,
            low_s=batch(0.05),
            high_s=batch(0.95),
            mean_s=mean_s,
            compute_s=parts.own_s / parts.batches,
            exchange_s=parts.exchange_s / parts.batches,
            waiting_s=waiting_s,
            scheduler_s=startup_s / max(work.steps, 1),
            total_s=startup_s + mean_s * work.steps,
            sent_bytes=parts.sent_bytes / parts.batches,
            memory_bytes=memory,
            host_bytes=memory * per_host,
            idle_ranks=parts.idle,
            fits=memory * per_host <= machine.available_bytes,
            limit="",
            extrapolated=n > machine.slots,
        )
        return _with_limit(prediction, parts, self)

    def _memory(self, candidate: Candidate) -> float:
        """Of a rank: what the rehearsal held, and the tree's partial sums that it did not."""
        count, shard = self.shards(self.work.batch_size)
        if candidate.strategy == "local_sgd":
            count, shard = self.shards(-(-self.work.batch_size // candidate.workers))
        held: float = self.profile.peak_bytes(candidate.mesh, shard)
        levels = max(math.ceil(math.log2(max(count, 1))) - 2, 0)
        held += levels * self.profile.network.payload_bytes / candidate.grid.mesh.size
        if self._mirrors(candidate):  # weights, the optimizer's vectors, and the step's sum
            payload = self.profile.payload_bytes(candidate.mesh)
            held += payload * (2 + self.profile.network.slots)
        return held

    def _mirrors(self, candidate: Candidate) -> bool:
        """Whether ranks keep copies of each other's parts."""
        return self.work.mirrors and bool(candidate.mesh) and candidate.grid.batch == 1


def _with_limit(prediction: Prediction, parts: Parts, model: Model) -> Prediction:
    """Name what limits: the largest part of a batch's time."""
    shares = {
        "compute": prediction.compute_s,
        "exchange": prediction.exchange_s,
        "waiting": prediction.waiting_s,
    }
    largest = max(shares, key=lambda name: shares[name])
    n = prediction.candidate.workers
    if parts.limit:
        text = parts.limit
    elif largest == "compute":
        _, shard = model.shards(model.work.batch_size)
        together = model._together(n)
        text = "cores"
        if parts.idle:
            text = "too few logical shards"
        elif model._crowding(n) > 1:
            text = "more ranks than cores"
        elif together > 1 and model.profile.contention(shard) > 1.3:
            text = "cores, and the memory they share"
    elif largest == "exchange":
        curve = model._links(n).remote or model._links(n).local
        small = (
            curve is None or prediction.sent_bytes / curve.bytes_per_s < 0.5 * shares["exchange"]
        )
        text = "latency of exchanges" if small else "bandwidth of exchanges"
    else:
        text = "the slowest rank"
    return dataclasses.replace(prediction, limit=text)
