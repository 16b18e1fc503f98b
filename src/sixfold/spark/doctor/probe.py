"""What an executor is asked, by functions that travel whole: Sixfold may not be there."""

from collections.abc import Callable, Iterable
from typing import Any

NEEDED = ("torch", "numpy", "pyarrow", "PIL", "safetensors", "fsspec")


def executor_probe() -> Callable[[Iterable[Any]], list[dict[str, Any]]]:
    """A function that tells what an executor has."""
    needed = NEEDED

    def probe(_: Iterable[Any]) -> list[dict[str, Any]]:
        import importlib.util
        import os
        import pathlib
        import platform
        import shutil
        import socket
        import sys
        import tempfile
        import time
        from importlib import metadata

        found: dict[str, Any] = {
            "host": socket.gethostname(),
            "python": platform.python_version(),
            "executable": sys.executable,
            "machine": platform.machine(),
            "time": time.time(),
            "lacking": [name for name in needed if importlib.util.find_spec(name) is None],
            "free_bytes": shutil.disk_usage(tempfile.gettempdir()).free,
            "pid": os.getpid(),
        }
        try:
            found["torch"] = metadata.version("torch")
        except metadata.PackageNotFoundError:
            found["torch"] = ""
        try:
            text = pathlib.Path("/proc/meminfo").read_text(encoding="ascii")
            lines = dict(line.split(":", 1) for line in text.splitlines())
            found["memory_bytes"] = int(lines["MemAvailable"].split()[0]) * 1024
        except (OSError, KeyError, ValueError):
            found["memory_bytes"] = None
        return [found]

    return probe


def call_probe(address: tuple[str, int]) -> Callable[[Iterable[Any]], list[dict[str, Any]]]:
    """A function that tells whether an executor can call the driver."""

    def probe(_: Iterable[Any]) -> list[dict[str, Any]]:
        import socket

        host, port = address
        try:
            with socket.create_connection((host, port), timeout=5.0) as connection:
                answer = connection.recv(16).decode("ascii", "replace")
            return [{"host": socket.gethostname(), "answer": answer, "error": ""}]
        except OSError as error:
            told = f"{type(error).__name__}: {error}"
            return [{"host": socket.gethostname(), "answer": "", "error": told}]

    return probe


def share_probe(folder: str, token: str) -> Callable[[Iterable[Any]], list[dict[str, Any]]]:
    """A function that tells whether an executor reads the driver's file, and leaves one for it."""

    def probe(_: Iterable[Any]) -> list[dict[str, Any]]:
        import os
        import pathlib
        import socket

        host, place = socket.gethostname(), pathlib.Path(folder)
        try:
            seen = (place / "driver").read_text(encoding="ascii") == token
            (place / f"{host}-{os.getpid()}").write_text(token, encoding="ascii")
            error = "" if seen else "it holds another file of that name"
        except OSError as failed:
            error = f"{failed.strerror} ({failed.filename})"
        return [{"host": host, "file": f"{host}-{os.getpid()}", "error": error}]

    return probe
