"""The launcher computes a shard about which two ranks disagree, and neither can be believed.

A rank writes the weights of the step into the run directory and tells the launcher, which computes
the shard as any rank would and writes the hash of it beside them.
"""

import dataclasses
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sixfold import data as datasets
from sixfold.core import tensor_file
from sixfold.core.errors import SixfoldError
from sixfold.core.files import write_atomically, write_json
from sixfold.core.run_directory import read_json
from sixfold.distributed.collectives import tree_all_reduce
from sixfold.distributed.logical_shards import Node
from sixfold.distributed.process_group import Buffer, Communicator, alone
from sixfold.distributed.process_group.ambient import (
    one_thread,
    restore_randomness,
    save_randomness,
)
from sixfold.training.checkpoint import model_tensors
from sixfold.training.config import TrainConfig
from sixfold.training.strategies.sync.audit import digest
from sixfold.training.strategies.sync.strategy import assemble_sync

PATIENCE_S = 120.0  # with the launcher, which has to open data and network
POLL_S = 0.05


def ask_launcher(
    comm: Communicator, folder: Path, model: nn.Module, number: int, shard: int
) -> bytes:
    """The launcher's hash of a shard of a step (from 0); empty if none is to be had."""
    state = folder / f"audit-{secrets.token_hex(4)}.safetensors"
    verdict = state.with_suffix(".json")
    write_atomically(state, tensor_file.pack(model_tensors(model), {}))
    dispute = {"kind": "audit", "step": number, "shard": shard, "state": str(state)}
    try:
        comm.report(dispute)
        until = time.monotonic() + PATIENCE_S
        while not verdict.exists() and time.monotonic() < until:
            comm.keep_alive()
            time.sleep(POLL_S)
        return bytes.fromhex((read_json(verdict) or {}).get("digest", ""))
    finally:
        state.unlink(missing_ok=True)
        verdict.unlink(missing_ok=True)


def judge(config: TrainConfig, dispute: Mapping[str, Any]) -> None:
    """Answer `ask_launcher`, in the launcher; `config` is that of the ranks."""
    state, found = Path(dispute["state"]), b""
    if not state.exists():
        return  # it is on another host
    randomness = save_randomness()
    try:
        with one_thread():
            found = _digest(config, state, dispute["step"], dispute["shard"])
    except (SixfoldError, OSError):
        pass  # the ranks hear that nobody knows
    finally:
        restore_randomness(randomness)
        write_json(state.with_suffix(".json"), {"digest": found.hex()})


def _digest(config: TrainConfig, state: Path, number: int, shard: int) -> bytes:
    strategy = dataclasses.replace(config.strategy, audit=0.0)
    config = dataclasses.replace(config, strategy=strategy)
    sync = assemble_sync(alone(), config, datasets.open_data(config.data))
    with tensor_file.open_tensors(state) as file:
        for name, tensor in sync.step.model.state_dict().items():
            tensor.copy_(file.get_tensor(name))
    count, found = sync.plan.count(number), b""

    def total_sum(partials: list[tuple[Node, Buffer]], out: Buffer) -> Buffer:
        return tree_all_reduce(alone(), partials, count, out=out)

    def note(index: int, payload: Tensor) -> None:
        nonlocal found
        if index == shard:
            found = digest(payload)

    order = sync.plan.order(sync.plan.place(number)[0])
    shards = (sync.plan.shard(number, index, order) for index in range(count))
    sync.step.partials(number, shards, total_sum, note)
    return found
