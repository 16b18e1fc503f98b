"""Tensors that share memory with weights or buffers, which training would tear apart.

Weights and buffers are moved into vectors before training, each tensor to its own place. What has
looked into their old memory (a view in an attribute, a NumPy array, a second parameter) would go on
looking at the values of the beginning, where a plain loop shows it the trained ones.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sixfold.models.observe import held_memory


def sharing_problem(network: nn.Module, moved: Collection[str]) -> str | None:
    """What shares memory with a tensor that training changes; None if nothing does.

    Args:
        network: as it is after a forward.
        moved: names of the buffers that a forward changes; other buffers are constants.
    """
    changing = {name for name, p in network.named_parameters() if p.requires_grad} | set(moved)
    registered = [*network.named_parameters(), *network.named_buffers()]
    reaches = sorted(
        (*reach, name) for name, tensor in registered if (reach := _reach(tensor)) is not None
    )
    tensors = dict(registered)
    for place, (_, end, name) in enumerate(reaches):
        for start, _, other in reaches[place + 1 :]:
            if start >= end:
                break
            if {name, other} & changing and _overlap(tensors[name], tensors[other]):
                return (
                    f"'{name}' and '{other}' lie in the same memory: make them one by assigning "
                    "the tensor itself (self.b.weight = self.a.weight), or two with .clone()"
                )
    for where, held in held_memory(network):
        start, end = _reach(held) or (0, 0)
        for begin, stop, name in reaches:
            if name in changing and start < stop and begin < end:
                return (
                    f"'{where}' looks into the memory of '{name}', which is moved before training, "
                    f"so it would keep the values of the beginning: use self.{name} itself"
                )
    return None


def _reach(tensor: Tensor | np.ndarray[Any, Any]) -> tuple[int, int] | None:
    """Addresses of a tensor's first element and behind its last; None if it has none."""
    if isinstance(tensor, np.ndarray):
        start: int = tensor.__array_interface__["data"][0]
        steps, item = tensor.strides, tensor.itemsize
    elif tensor.is_meta or tensor.layout != torch.strided:
        return None
    else:
        item, start = tensor.element_size(), tensor.data_ptr()
        steps = tuple(step * item for step in tensor.stride())
    if 0 in tensor.shape:
        return None
    moves = [(n - 1) * step for n, step in zip(tensor.shape, steps, strict=True)]
    return start + sum(min(m, 0) for m in moves), start + sum(max(m, 0) for m in moves) + item


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors in one memory have an element in common, as interleaved ones have not."""
    if one.dtype != other.dtype:
        return True
    marks = torch.zeros(one.untyped_storage().nbytes() // one.element_size(), dtype=torch.bool)
    marks.as_strided(one.shape, one.stride(), one.storage_offset()).fill_(True)
    return bool(marks.as_strided(other.shape, other.stride(), other.storage_offset()).any())
