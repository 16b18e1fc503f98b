"""The best ticket carried over to another data set, against training from scratch.

Four ways to begin, each with the whole schedule on the new data:

* ``ticket``: the trained ticket, fine-tuned;
* ``rewound``: the ticket's weights as they were at its rewind point, under its mask;
* ``reinit``: its mask with fresh weights;
* ``scratch``: the whole network with fresh weights.

A. Morcos et al., "One ticket to win them all: generalizing lottery ticket initializations across
datasets and optimizers", NeurIPS 2019, do the second. Where the new data have another number of
classes, the output layer is fresh and whole in all of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save
from torch import Tensor

from sixfold import data as datasets
from sixfold import models
from sixfold.core.files import write_atomically
from sixfold.distributed.tasks import Assignment, Task
from sixfold.lottery.plan import Cell, member_seed
from sixfold.training.checkpoint import path_of
from sixfold.training.config import InitializationConfig, TrainConfig
from sixfold.training.sparsity import Mask, load_mask, save_mask
from sixfold.training.sparsity.initialization import read_weights
from sixfold.training.step.precision import in_precision

WAYS = ("ticket", "rewound", "reinit", "scratch")


def transfer_members(best: Cell, *, seeds: int, data: Mapping[str, Any], steps: int) -> list[Task]:
    """The members that carry a ticket over."""
    return [
        Task(
            name=transfer_name(way, seed),
            settings={
                "task": "transfer",
                "way": way,
                "rewind": best.rewind,
                "seed": seed,
                "data": dict(data),
            },
            dependencies=(best.member(0),),
            cost=float(steps),
        )
        for way in WAYS
        for seed in range(seeds)
    ]


def transfer_name(way: str, seed: int) -> str:
    """Name of the member that goes a way with a seed."""
    return f"transfer {way} seed {seed}"


def carry_over(config: TrainConfig, assignment: Assignment) -> TrainConfig:
    """Write what a way begins with into the member's folder; the settings of its training."""
    settings, folder = assignment.settings, assignment.folder
    (ticket,) = assignment.dependencies.values()
    seed = member_seed(config.training.seed, settings["seed"], "transfer")
    training = dataclasses.replace(config.training, seed=seed)
    initialization = InitializationConfig()
    if settings["way"] != "scratch":
        data = datasets.open_data(config.data)
        network = in_precision(
            models.build(config.model, shape=data.shape, classes=data.outputs, seed=seed),
            config.training.precision,
        )
        state = network.state_dict()
        mask = fitting(load_mask(ticket / "mask.safetensors"), state)
        save_mask(folder / "mask.safetensors", mask)
        initialization = dataclasses.replace(initialization, mask=str(folder / "mask.safetensors"))
        if settings["way"] != "reinit":
            dense = folder.parents[1] / "dense"
            rewound = path_of(dense / "snapshots", settings["rewind"])
            source = read_weights(ticket if settings["way"] == "ticket" else rewound)
            start = {name: tensor.clone() for name, tensor in state.items()}
            start |= {n: t.to(state[n].dtype) for n, t in fitting(source, state).items()}
            write_atomically(folder / "start.safetensors", save(start))
            initialization = dataclasses.replace(
                initialization, weights=str(folder / "start.safetensors")
            )
    return dataclasses.replace(config, training=training, initialization=initialization)


def fitting(tensors: Mapping[str, Tensor] | Mask, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors that a network's state has in the same shape."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name in state and state[name].shape == tensor.shape
    }
