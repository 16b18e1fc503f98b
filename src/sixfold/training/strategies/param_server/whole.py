"""The servers' slices and the whole network: one cut into the others, and put together again.

A checkpoint of a run with parameter servers is an ordinary checkpoint, whose metadata hold the
servers' ledgers besides. The snapshots in it were not taken at one moment: an update may be in one
slice and not yet in another. Each slice comes with its own table, so a run that goes on from there
applies the missing half and not the other one again.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sixfold.core.errors import UserError
from sixfold.training.checkpoint import load_checkpoint, read_notes, save_checkpoint
from sixfold.training.progress import Progress
from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer
from sixfold.training.strategies.param_server.server import Ledger, Pulled, Snapshot
from sixfold.training.strategies.param_server.slices import Slice, cut
from sixfold.training.strategies.param_server.snapshots import ledger_from_plain, ledger_to_plain

LEDGERS = "servers"  # key of the ledgers in a checkpoint's metadata


class WholeState:
    """The whole network, which is cut into slices and put together from them."""

    def __init__(self, state: FlatState, optimizer: Optimizer, servers: int) -> None:
        self.state, self.optimizer = state, optimizer
        self.slices = slices_of(state, servers)

    def snapshots(self, ledgers: Sequence[tuple[int, Ledger]] | None = None) -> list[Snapshot]:
        """What every server starts from; `ledgers` has its optimizer's updates and ledger."""
        counters = self.state.counters()
        found = []
        for number, piece in enumerate(self.slices):
            updates, ledger = (0, Ledger()) if ledgers is None else ledgers[number]
            found.append(
                Snapshot(
                    weights=self.state.parameters[slice(*piece.parameters)].clone(),
                    buffers=self.state.buffers[slice(*piece.buffers)].clone(),
                    counters=counters[slice(*piece.counters)].clone(),
                    slots={
                        name: slot[slice(*piece.parameters)].clone()
                        for name, slot in self.optimizer.slots.items()
                    },
                    updates=updates,
                    ledger=ledger,
                )
            )
        return found

    def assemble(self, snapshots: Sequence[Snapshot]) -> None:
        """Put the slices together."""
        counters = self.state.counters()
        for piece, snapshot in zip(self.slices, snapshots, strict=True):
            put_slice(self.state, counters, piece, snapshot)
            for name, slot in self.optimizer.slots.items():
                slot[slice(*piece.parameters)] = snapshot.slots[name]
        self.state.set_counters(counters)
        self.optimizer.updates = max(snapshot.updates for snapshot in snapshots)

    def save(
        self, folder: Path, progress: Progress, snapshots: Sequence[Snapshot], *, keep: int
    ) -> Path:
        """Write a checkpoint from the servers' snapshots."""
        self.assemble(snapshots)
        ledgers = [[kept.updates, ledger_to_plain(kept.ledger)] for kept in snapshots]
        notes = {LEDGERS: json.dumps(ledgers, separators=(",", ":"))}
        return save_checkpoint(folder, progress, self.state, self.optimizer, keep=keep, notes=notes)

    def restore(self, path: Path) -> tuple[Progress, list[Snapshot]]:
        """Take up a checkpoint: how far it is, and what every server starts from.

        A `UserError` if it is damaged, or was written by another number of servers.
        """
        progress = load_checkpoint(path, self.state, self.optimizer)
        ledgers = json.loads(read_notes(path).get(LEDGERS, "[]"))
        if len(ledgers) != len(self.slices):
            raise UserError(
                f"{path} was written by {len(ledgers)} parameter servers, not by "
                f"{len(self.slices)}: go on with --servers {len(ledgers)}"
            )
        return progress, self.snapshots(
            [(int(updates), ledger_from_plain(ledger)) for updates, ledger in ledgers]
        )


def slices_of(state: FlatState, servers: int) -> list[Slice]:
    """What each server owns of a network."""
    parameters, buffers, counters, _ = state.sections
    return cut(parameters, buffers, counters, servers)


def put_slice(state: FlatState, counters: Tensor, piece: Slice, held: Snapshot | Pulled) -> None:
    """Copy a server's slice into the network.

    `counters`, all integer buffers (K,), are changed in place; `state` takes them with
    `set_counters` when all slices are in.
    """
    with torch.no_grad():
        state.parameters[slice(*piece.parameters)] = held.weights
        state.buffers[slice(*piece.buffers)] = held.buffers
        counters[slice(*piece.counters)] = held.counters
