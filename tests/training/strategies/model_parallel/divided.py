"""A divided network beside the undivided one: the oracle of this room's tests."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sixfold.distributed.engines.inline import InlineEngine
from sixfold.distributed.process_group import Communicator
from sixfold.training.layers.dropout import Draw
from sixfold.training.layers.executor import LayerExecutor
from sixfold.training.step.step import channels_last
from sixfold.training.strategies.model_parallel.division import Ways
from sixfold.training.strategies.model_parallel.grid import Mesh
from sixfold.training.strategies.model_parallel.network import DividedNetwork, divide
from sixfold.training.strategies.model_parallel.part import Part

Shape = tuple[int, int, int]


@dataclass
class Outcome:
    """What one rank has after a forward and a backward pass."""

    logits: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    parts: dict[str, Part]
    sent_bytes: int


def batch(shape: Shape, samples: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(samples, *shape, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, classes, (samples,), generator=generator)


def load_parts(divided: DividedNetwork, state: dict[str, Tensor]) -> None:
    rank = divided.group.rank
    divided.load({name: part.cut(state[name], rank) for name, part in divided.parts.items()})


def run_divided(
    network: nn.Module,
    shape: Shape,
    mesh: Mesh,
    images: Tensor,
    labels: Tensor,
    layers: Ways = (),
) -> list[Outcome]:
    """Forward and backward on all ranks of a tile, inline."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    found: dict[int, Outcome] = {}

    def compute(comm: Communicator) -> None:
        divided = divide(copy.deepcopy(network).to("meta"), shape, comm, mesh, layers)
        load_parts(divided, state)
        divided.train()
        divided.connect(Draw(7).mask)
        torch.manual_seed(0)  # of functions that draw, as of the network beside
        parameters = dict(divided.named_parameters())
        executor = LayerExecutor(divided, list(parameters.values()))
        logits, saved = executor.forward(channels_last(divided.cut(images)))
        likely = logits.softmax(1) - nn.functional.one_hot(labels, logits.shape[1])
        gradients = {name: torch.full_like(p, torch.nan) for name, p in parameters.items()}
        executor.backward(saved, likely, list(gradients.values()))
        found[comm.rank] = Outcome(
            logits,
            gradients,
            {name: value.clone() for name, value in divided.named_buffers()},
            divided.parts,
            comm.traffic.bytes_sent,
        )

    with InlineEngine() as engine:
        engine.run_ranks(compute, mesh.size)
    return [found[rank] for rank in range(mesh.size)]


def deviation(
    network: nn.Module, shape: Shape, mesh: Mesh, samples: int = 3, layers: Ways = ()
) -> float:
    """Largest difference between a divided network and plain torch: logits, gradients, buffers."""
    network = network.double().train()
    images, labels = batch(shape, samples, 2)
    oracle = copy.deepcopy(network)
    logits = oracle(images)
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    loss.backward()  # type: ignore[no-untyped-call]
    outcomes = run_divided(network, shape, mesh, images, labels, layers)
    differences = [_largest(found.logits - logits) for found in outcomes]
    whole: dict[str, Any] = {name: p.grad for name, p in oracle.named_parameters()}
    buffers = dict(oracle.named_buffers())
    for rank, found in enumerate(outcomes):
        assert set(found.gradients) == set(whole)
        for name, part in found.parts.items():
            if name in buffers:
                differences.append(_largest(found.buffers[name] - part.cut(buffers[name], rank)))
                continue
            group = part.layout.mesh.group(rank, part.summed)
            total = sum(outcomes[peer].gradients[name] for peer in group)
            differences.append(_largest(total - part.cut(whole[name], rank)))
    return max(differences)


def _largest(difference: Any) -> float:
    return float(difference.detach().abs().max()) if difference.numel() else 0.0
