"""Micro-batches: a logical shard computed a few images at a time, so that its maps stay in a cache.

Large shards (`--shards 1` at a batch of 2000, say) write every map to memory and read it back in
the backward pass. Cut into pieces, forward and backward of a piece follow each other while its
maps are still in the cache; the pieces' gradients are added in their order, so a shard's payload
is the same whoever computes it.

How many images a piece has follows from the network's shapes alone, by `formula`, and never from
the machine: the same on every rank, every machine, after a restart and in recovery. A shard is
cut only where every layer is known to treat each sample by itself, which batch-norm does not.

Legend: N images; C, H, W channels, rows and columns of an image.
"""

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from sixfold.models.graph.operations import operation_of
from sixfold.models.mobilenet import InvertedResidual
from sixfold.models.resnet import Block
from sixfold.models.shapes import Shape
from sixfold.training.config import TrainConfig
from sixfold.training.layers.rewrites import has_hooks

CACHE_BYTES = 16_000_000
"""Of a piece's maps and their gradients. Measured: docs/performance.md, "Micro-batches". It is a
constant, not this machine's cache: bits would depend on the machine."""

WEIGHTS_WORTH = 4
"""A piece reads all weights and adds all gradients once more, which pays only if its maps are so
many times as large."""

FEWEST = 32
"""Images of a piece at least: what calls of the library cost is shared by so many. Shards of the
default size, 16 to 31 images, are therefore never cut. Measured: same place."""

AUTO, OFF = "auto", "off"


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """How shards are cut.

    Attributes:
        images: most images of a piece; None: shards are computed whole.
        obstacle: why shards of this network cannot be cut; empty if they can.
    """

    images: int | None = None
    obstacle: str = ""


def choose(model: nn.Module, shape: Shape, config: TrainConfig, numbers: torch.dtype) -> MicroBatch:
    """How the shards of a training are cut.

    Args:
        model: the network, rewritten as it is trained.
        shape: (C, H, W) of an image.
        config: the settings, of which `--micro-batch` counts.
        numbers: in which layers compute.
    """
    obstacle = why_whole(model)
    wanted = config.compute.micro_batch
    if obstacle or wanted == OFF:
        return MicroBatch(obstacle=obstacle)
    return MicroBatch(images=formula(model, shape, numbers) if wanted == AUTO else int(wanted))


def note(chosen: MicroBatch, config: TrainConfig) -> str | None:
    """What there is to say where somebody has counted on pieces and there will be none."""
    wanted = config.compute.micro_batch
    if not chosen.obstacle or wanted == OFF or (wanted == AUTO and config.training.shards is None):
        return None
    return f"--micro-batch {wanted}: shards are computed whole, because {chosen.obstacle}"


def formula(model: nn.Module, shape: Shape, numbers: torch.dtype) -> int:
    """Images of a piece, from the network's shapes.

        budget  =  max( CACHE_BYTES,  WEIGHTS_WORTH x bytes of the weights )
        images  =  max( budget / ( bytes of the input + 2 x bytes of every map that is written ),
                        FEWEST )

    Args:
        model: the network, rewritten as it is trained.
        shape: (C, H, W) of an image.
        numbers: in which layers compute.

    >>> layers = nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), nn.Flatten(), nn.Linear(32768, 10))
    >>> formula(layers, (3, 32, 32), torch.float32)  # 16 MB / 274,512 bytes
    58
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    budget = max(CACHE_BYTES, WEIGHTS_WORTH * weights * numbers.itemsize)
    return max(budget // image_bytes(model, shape, numbers), FEWEST)


def image_bytes(model: nn.Module, shape: Shape, numbers: torch.dtype) -> int:
    """What one image makes a step work on: its pixels, and every map with its gradient.

    Nothing is computed: the layers run on the meta device, where tensors have shapes only.
    """
    on_meta = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }
    image = torch.empty((1, *shape), device="meta", dtype=next(iter(on_meta.values())).dtype)
    written: list[int] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del layer
        if output is not inputs[0]:
            written.append(output.numel())

    leaves = [
        layer
        for layer in model.modules()
        if not list(layer.children()) and type(layer) is not nn.Flatten
    ]
    handles = [layer.register_forward_hook(note) for layer in leaves]
    was_training = model.training
    try:
        with torch.no_grad():
            torch.func.functional_call(model.eval(), on_meta, (image,))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return numbers.itemsize * (image.numel() + 2 * sum(written))


def micro_batches(samples: int, most: int | None) -> list[slice]:
    """The pieces of a shard: as few as have at most so many images, of sizes that differ by one.

    >>> pieces(10, 4)
    [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    >>> pieces(10, None)
    [slice(0, 10, None)]
    """
    count = 1 if most is None else -(-samples // most)
    return [slice(k * samples // count, (k + 1) * samples // count) for k in range(count)]


def why_whole(model: nn.Module) -> str:
    """The first layer of which it is not known that it treats each sample by itself, or empty.

    >>> why_whole(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    "layer '1' (BatchNorm2d) may compute with several images at once"
    """
    for name, module in model.named_modules():
        where = f"layer '{name}' ({type(module).__name__})" if name else type(module).__name__
        if has_hooks(module):
            return f"{where} is watched by hooks"
        if not keeps_samples_apart(module):
            return f"{where} may compute with several images at once"
    return ""


def keeps_samples_apart(module: nn.Module) -> bool:
    """Whether what a module does to a sample depends on that sample, its weights and keys alone.

    A module that is no known operation, the user's own among them, may do anything.
    """
    row = operation_of(module)
    return type(module) in _CONTAINERS if row is None else row.leaves_samples_apart(module)


_CONTAINERS = (nn.Sequential, Block, InvertedResidual)
