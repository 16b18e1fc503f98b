"""A Redis server of our own for as long as a study lasts: memory only, one interface, a password.

Its settings go through its standard input, so that the password is in no argument list and in no
file. Port: one that was free a moment ago; should somebody else take it, the server ends, and the
next one is tried. The password proves that whoever answers is ours.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sixfold.core.errors import RunError

if TYPE_CHECKING:
    from redis import Redis

START_S = 10.0  # for a server to answer; measured 0.02 s
TRIES = 5
TIMEOUT_S = 30.0  # for any one reply; a value of 100 MB takes 0.1 s on a loopback interface


@dataclass(frozen=True)
class Address:
    """Where a Redis server is, and its password."""

    host: str  # by which workers reach it
    port: int
    password: str = field(repr=False)


def connect(address: Address) -> Redis:
    """A client of a server; it connects at its first command."""
    from redis import Redis

    return Redis(
        host=address.host,
        port=address.port,
        password=address.password,
        protocol=2,  # what servers of all versions speak
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
    )


def missing() -> str:
    """What is missing to start a server and to speak to it; empty if nothing."""
    if shutil.which("redis-server") is None:
        return (
            "not run: there is no redis-server on the PATH; Debian has it in the package "
            "redis-server (apt-get install redis-server)"
        )
    if importlib.util.find_spec("redis") is None:
        return "not run: redis-py is not installed (pip install 'sixfold[lab]')"
    return ""


@contextmanager
def redis_server(interface: str, reached: str) -> Iterator[Address]:
    """A server on one interface, reached at an address; a `RunError` if it does not start."""
    with tempfile.TemporaryDirectory(prefix="sixfold-redis-") as folder:
        said = ""
        for _ in range(TRIES):
            address = Address(reached, _free_port(interface), secrets.token_hex(32))
            process = _start(interface, address, Path(folder))
            try:
                if _answers(process, address):
                    yield address
                    return
            finally:
                _end(process)
            said = Path(folder, "log.txt").read_text(errors="replace").strip()
        last = said.splitlines()[-1] if said else "it did not answer"
        raise RunError(f"redis-server could not be started: {last}")


def _free_port(interface: str) -> int:
    with socket.socket() as probe:
        probe.bind((interface, 0))
        return int(probe.getsockname()[1])


def _start(interface: str, address: Address, folder: Path) -> subprocess.Popen[bytes]:
    settings = [
        f"bind {interface}",
        f"port {address.port}",
        f"requirepass {address.password}",
        'save ""',
        "appendonly no",
        "protected-mode yes",
        f"dir {folder}",
        "proto-max-bulk-len 1gb",
    ]
    with Path(folder, "log.txt").open("ab") as log:
        process = subprocess.Popen(
            ["redis-server", "-"], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write("\n".join(settings).encode() + b"\n")
    return process


def _answers(process: subprocess.Popen[bytes], address: Address) -> bool:
    """Whether it accepts the password, before it ends or is too slow."""
    from redis import RedisError

    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with connect(address) as redis:
                redis.ping()
                return True
        except RedisError:
            time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(START_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
