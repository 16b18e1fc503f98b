from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.spark_masters import EngineProcess

from sixfold.core.errors import RunError
from sixfold.studies.convolution.geometry import Geometry
from sixfold.studies.lab.activations.halves import Halves
from sixfold.studies.lab.activations.redis_server import Address, missing, redis_server
from sixfold.studies.lab.activations.stores import (
    FileStore,
    RedisStore,
    decode,
    encode,
    folder_problem,
    hang_up,
)
from sixfold.studies.lab.activations.ways import of_a_step, serial
from sixfold.studies.lab.problem import Problem

GEOMETRIES = [
    Geometry.of((40, 3, 8, 8), (4, 3, 5, 5), padding=2),
    Geometry.of((33, 2, 9, 11), (5, 2, 3, 2), stride=(2, 1), dilation=(1, 2)),
    Geometry.of((2, 1, 1, 1), (1, 1, 1, 1)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_halves_have_the_bits_of_a_step(geometry: Geometry, dtype: str) -> None:
    halves = Halves(Problem(geometry=geometry, block=7, dtype=dtype))
    wanted = of_a_step(halves)
    assert np.abs(wanted).max() > 0
    _, _, gradient = serial(halves)
    np.testing.assert_array_equal(gradient, wanted)


def test_activations_keep_their_bits_as_bytes() -> None:
    halves = Halves(Problem(geometry=GEOMETRIES[0], block=7))
    tensors, frame = halves.forward(halves.shard(1))
    again = decode(encode(tensors))
    once = halves.backward(tensors, frame)
    np.testing.assert_array_equal(halves.backward(again, frame), once)


def test_a_file_store_keeps_and_forgets(tmp_path: Path) -> None:
    store = FileStore((tmp_path / "made").as_uri())
    store.put("a", b"x" * 1000)
    assert store.get("a") == b"x" * 1000
    store.delete("a")
    assert list((tmp_path / "made").iterdir()) == []
    assert folder_problem("nosuchprotocol://x") != ""
    assert folder_problem(str(tmp_path)) == ""


@pytest.fixture
def server() -> Iterator[Address]:
    if missing():
        pytest.skip("needs redis-server and redis-py")
    with redis_server("127.0.0.1", "127.0.0.1") as address:
        yield address


def test_redis_keeps_and_forgets(server: Address) -> None:
    store = RedisStore(server)
    store.put("a", bytes(3_000_000))
    assert store.get("a") == bytes(3_000_000)
    store.delete("a")
    with pytest.raises(RunError, match="has no 'a'"):
        store.get("a")
    hang_up(server)


@pytest.mark.full
def test_redis_wants_the_password_and_listens_on_one_interface(server: Address) -> None:
    with pytest.raises(RunError, match="invalid username-password"):
        RedisStore(Address(server.host, server.port, "guess")).delete("a")
    with socket.create_connection((server.host, server.port), 5) as stranger:
        stranger.sendall(b"*1\r\n$4\r\nPING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")
    assert server.password not in repr(server)


@pytest.mark.full
def test_a_server_that_is_gone_is_named() -> None:
    pytest.importorskip("redis")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RunError, match=f"Redis at 127.0.0.1:{port}: "):
        RedisStore(Address("127.0.0.1", port, "p")).delete("a")


def run_ways(engine: Any, geometry: Geometry, folder: str) -> dict[str, Any]:
    """Over there: for every way whether the gradient has the serial bits, and its jobs."""
    import numpy as np

    from sixfold.studies.lab.activations import ways
    from sixfold.studies.lab.activations.halves import Halves
    from sixfold.studies.lab.activations.redis_server import missing, redis_server
    from sixfold.studies.lab.activations.stores import FileStore, RedisStore
    from sixfold.studies.lab.cluster import Cluster
    from sixfold.studies.lab.problem import Problem

    cluster = Cluster(engine)
    problem = Problem(geometry=geometry, block=7)
    wanted = ways.of_a_step(Halves(problem))
    found = {}

    def note(name: str, passed: ways.Passed, meters: ways.Meters) -> None:
        equal = bool(np.array_equal(passed.gradient, wanted))
        jobs = passed.forward.jobs + passed.backward.jobs
        found[name] = (equal, jobs, passed.chunks, meters.kept_bytes.value)

    meters = ways.Meters.of(cluster.context)
    note("same", ways.same_worker(cluster, problem, meters), meters)
    meters = ways.Meters.of(cluster.context)
    note("file", ways.through_store(cluster, problem, FileStore(folder), meters), meters)
    meters = ways.Meters.of(cluster.context)
    note("driver", ways.through_driver(cluster, problem, 40_000, meters), meters)
    if not missing():
        with redis_server("127.0.0.1", "127.0.0.1") as address:
            meters = ways.Meters.of(cluster.context)
            note("redis", ways.through_store(cluster, problem, RedisStore(address), meters), meters)
    return found


@pytest.mark.full
@pytest.mark.spark
def test_every_way_gives_the_serial_gradient(spark_local: EngineProcess, tmp_path: Path) -> None:
    found = spark_local.call(run_ways, GEOMETRIES[0], tmp_path.as_uri())
    assert all(equal for equal, *_ in found.values()), found
    assert found["same"][1:] == (1, 1, 0)
    assert found["file"][1:3] == (2, 1)
    _, jobs, chunks, kept = found["driver"]
    assert chunks > 1
    assert jobs == 2 * chunks
    assert kept == found["file"][3] > 0
    assert list(tmp_path.iterdir()) == []
