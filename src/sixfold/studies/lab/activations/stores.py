"""Where activations are kept between two stages: a file store, or Redis.

A store is sent to the workers as the address of what it is, and opened there.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fsspec
import safetensors.torch

from sixfold.core.errors import RunError
from sixfold.studies.lab.activations.halves import Tensors
from sixfold.studies.lab.activations.redis_server import Address, connect

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True)
class FileStore:
    """A folder of any file system that fsspec knows: one file a key."""

    url: str  # of the folder, which every worker must reach

    def put(self, key: str, value: bytes) -> None:
        """Write a file."""
        system, path = _folder(self.url)
        system.pipe_file(f"{path}/{key}", value)

    def get(self, key: str) -> bytes:
        """Read a file."""
        system, path = _folder(self.url)
        value: bytes = system.cat_file(f"{path}/{key}")
        return value

    def delete(self, key: str) -> None:
        """Remove a file."""
        system, path = _folder(self.url)
        system.rm(f"{path}/{key}")


@dataclass(frozen=True)
class RedisStore:
    """A Redis server."""

    address: Address

    def put(self, key: str, value: bytes) -> None:
        """Send a value."""
        with _explained(self.address):
            _connection(self.address).set(key, value)

    def get(self, key: str) -> bytes:
        """Fetch a value; a `RunError` if there is none, or the server is gone."""
        with _explained(self.address):
            value = _connection(self.address).get(key)
        if not isinstance(value, bytes):
            raise RunError(f"Redis at {self.address.host}:{self.address.port} has no {key!r}")
        return value

    def delete(self, key: str) -> None:
        """Forget a value; over a separate connection, for a process may do nothing else."""
        with _explained(self.address), connect(self.address) as redis:
            redis.delete(key)


Store = FileStore | RedisStore  # keeps bytes by key, for all workers


@contextlib.contextmanager
def _explained(address: Address) -> Iterator[None]:
    from redis import RedisError

    try:
        yield
    except RedisError as error:
        raise RunError(f"Redis at {address.host}:{address.port}: {error}") from error


def folder_problem(url: str) -> str:
    """Why a folder cannot be used, in a line; empty if it can."""
    store = FileStore(url)
    try:
        store.put(".sixfold", b"")
        store.delete(".sixfold")
    except Exception as error:  # a file system may raise anything
        return f"cannot be written to ({type(error).__name__}: {error})"
    return ""


@functools.lru_cache(maxsize=4)
def _folder(url: str) -> tuple[Any, str]:
    """The file system of a URL and the folder's path in it, made where that means something."""
    system, path = fsspec.core.url_to_fs(url)
    system.makedirs(path, exist_ok=True)
    return system, path


def hang_up(address: Address) -> None:
    """End this process's connection; another is made when it is wanted."""
    _connection(address).close()
    _connection.cache_clear()


@functools.lru_cache(maxsize=1)
def _connection(address: Address) -> Redis:
    return connect(address)


def encode(tensors: Tensors) -> bytes:
    """Activations as bytes: safetensors, plain data that executes nothing when it is read."""
    value: bytes = safetensors.torch.save(tensors)
    return value


def decode(value: bytes) -> Tensors:
    """Activations from bytes."""
    tensors: Tensors = safetensors.torch.load(value)
    return tensors
