"""A server's snapshot as a file: weights, optimizer state and table in one piece, or not at all."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sixfold.core import tensor_file
from sixfold.core.errors import RunError
from sixfold.core.files import write_atomically
from sixfold.training.strategies.param_server.server import LeaseName, Ledger, Snapshot

FORMAT = 1


def path_of(folder: Path, server: int) -> Path:
    """Where a server's snapshot lies."""
    return folder / f"server-{server:04d}.safetensors"


def table_to_plain(table: dict[LeaseName, int]) -> list[list[int]]:
    """A table by leases as plain data: epoch, shard, number."""
    return [[name.epoch, name.shard, number] for name, number in table.items()]


def table_from_plain(rows: Any) -> dict[LeaseName, int]:
    """What `table_to_plain` was given."""
    return {LeaseName(int(epoch), int(shard)): int(number) for epoch, shard, number in rows}


def ledger_to_plain(ledger: Ledger) -> dict[str, Any]:
    """A ledger as plain data."""
    return {
        "applied": table_to_plain(ledger.applied),
        "fences": table_to_plain(ledger.fences),
        "clock": ledger.clock,
        "stalenesses": sorted(ledger.stalenesses.items()),
        "refused": dict(ledger.refused),
    }


def ledger_from_plain(data: dict[str, Any]) -> Ledger:
    """What `ledger_to_plain` was given, JSON in between."""
    return Ledger(
        applied=table_from_plain(data["applied"]),
        fences=table_from_plain(data["fences"]),
        clock=int(data["clock"]),
        stalenesses=Counter({int(age): int(count) for age, count in data["stalenesses"]}),
        refused=Counter({str(why): int(count) for why, count in data["refused"].items()}),
    )


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Put a snapshot in the place of the last one, which stays if that fails (a `RunError`)."""
    tensors = {
        "weights": snapshot.weights,
        "buffers": snapshot.buffers,
        "counters": snapshot.counters,
        **{f"slot.{name}": slot for name, slot in snapshot.slots.items()},
    }
    metadata = {
        "format": str(FORMAT),
        "updates": str(snapshot.updates),
        "ledger": json.dumps(ledger_to_plain(snapshot.ledger), separators=(",", ":")),
    }
    write_atomically(path, tensor_file.pack(tensors, metadata))


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in a file; a `RunError` if there is none, or it is damaged."""
    try:
        with tensor_file.open_tensors(path) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != str(FORMAT):
                raise ValueError(f"snapshot format {metadata.get('format')}, expected {FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Snapshot(
                weights=tensors.pop("weights"),
                buffers=tensors.pop("buffers"),
                counters=tensors.pop("counters"),
                slots={name.removeprefix("slot."): slot for name, slot in tensors.items()},
                updates=int(metadata["updates"]),
                ledger=ledger_from_plain(json.loads(metadata["ledger"])),
            )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the server's snapshot {path} cannot be read ({error}): go on with --resume from "
            "the last checkpoint"
        ) from error
