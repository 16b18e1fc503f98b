"""A calibration made by hand: round figures, so that predictions can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sixfold.perf.plan.calibration import Calibration, Machine, Network, Point
from sixfold.perf.plan.candidates import Workload
from sixfold.perf.plan.model import Model
from sixfold.perf.plan.profile import Profile

LATENCY_S, BYTES_PER_S = 1e-4, 1e9
SHARD_S, STEP_S = 2e-3, 1e-3


def point(shards: int, concurrency: int = 2, mesh: str = "", **changes: object) -> Point:
    """A rehearsal of shards of 25 images: 2 ms each, and 1 ms a step."""
    values: dict[str, object] = {
        "mesh": mesh,
        "samples": 25 * shards,
        "shards": shards,
        "concurrency": concurrency,
        "step_s": STEP_S + SHARD_S * shards,
        "behind_s": 0.0,
        "clock_s": STEP_S + SHARD_S * shards,
        "data_s": 0.0,
        "update_s": 1e-4,
        "peak_bytes": 10**8,
        "payload_bytes": 4 * 10**6,
    }
    return Point(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def calibration() -> Calibration:
    rows = [[size, LATENCY_S + size / BYTES_PER_S, size / BYTES_PER_S] for size in (0.0, 1e6)]
    halo = ((1000,), (1000,))
    total = ((2_000_000,), (2_000_000,))
    divided: Any = {"mesh": "rows=2", "payload_bytes": 4 * 10**6}
    return Calibration(
        machine=Machine(
            name="by hand",
            engine="local",
            slots=2,
            ranks=2,
            available_bytes=10**9,
            base_bytes=10**7,
            adding_bytes_per_s=1e12,
            startup_s=1.0,
            links={"local": {"1": rows}},
        ),
        networks={
            "net": Network(
                payload_bytes=4 * 10**6,
                parameter_bytes=4 * 10**6,
                slots=1,
                points=(
                    point(1),
                    point(4),
                    point(1, step_s=2e-3, exchanges=(halo, total), **divided),
                    point(2, step_s=3e-3, exchanges=(halo, halo, total), **divided),
                    point(4, merge=True, step_s=1e-3, exchanges=(((), ()), total, total)),
                ),
                server={"round_s": 1e-3, "served_s": 4e-4, "moved_bytes": 8 * 10**6},
                update_s=1e-4,
                shared_update_s=3e-4,
            )
        },
    )


@pytest.fixture
def model_for(calibration: Calibration) -> Callable[..., Model]:
    def make(batch_size: int = 100, **changes: object) -> Model:
        return Model(
            calibration=calibration,
            profile=Profile(network=calibration.networks["net"]),
            work=Workload(batch_size=batch_size, steps=1000, **changes),  # type: ignore[arg-type]
        )

    return make
