"""Whether the links of a module compute what the module computes: tried out before they are used.

A forward is read by running it with stand-ins for tensors, and there are ways to write one that
behaves differently with stand-ins: `isinstance(x, Tensor)`, `torch.no_grad` around a part, values
remembered elsewhere. So values and all gradients are compared once, on random images of the first
shard's shape. Wrong readings differ by whole layers; rounding stays far below `TOLERANCE`.

Every rank comes to the same verdict: weights are the same at a run's first step, and images,
random numbers and the incoming gradient are drawn from fixed seeds.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from sixfold.models.graph.trace import first_line
from sixfold.training.layers.operations import AutogradOp, LayerOp

TOLERANCE = 0.02
"""Of a tensor's norm. Rounding in float32 makes 1e-5, or 1e-3 of a deep network with norms."""

NEGLIGIBLE = 1e-3
"""Of the largest gradient's norm: smaller ones may be nothing but what rounding leaves."""

SEED = 6
IMAGES = 8  # on which to try, if the forward can do with so few
Result = tuple[Tensor, list[Tensor]]
Made = TypeVar("Made")


def refusal_of(
    module: nn.Module, link: LayerOp, parameters: Sequence[nn.Parameter], like: Tensor
) -> str | None:
    """Why a link must not take a module's place, None if it may; tried on images like `like`.

    The link is of the module in full precision, with gradients in the order of `parameters`; the
    module is in the mode in which it is used, and left as it was.
    """
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    whole = AutogradOp(module, list(enumerate(parameters)))
    wanted = None
    for samples in sorted({min(IMAGES, len(like)), len(like)}):
        x = _images((samples, *like.shape[1:]), dtype)
        try:
            wanted = _kept(module, lambda x=x: _result(whole, x, parameters))  # type: ignore[misc]
            break
        except Exception:
            continue
    if wanted is None:
        return None  # what is wrong with it is told by the pass itself
    try:
        found = _kept(module, lambda: _result(link, x, parameters))
    except Exception as error:
        return f"without autograd it fails ({first_line(error)})"
    if found[0].shape != wanted[0].shape or _differ(found[0], wanted[0], 0.0):
        return "read without values it computes something else"
    least = NEGLIGIBLE * max((float(g.norm()) for g in wanted[1]), default=0.0)
    if any(_differ(a, b, least) for a, b in zip(found[1], wanted[1], strict=True)):
        return "read without values it has other gradients"
    return None


def _images(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _result(link: LayerOp, x: Tensor, parameters: Sequence[nn.Parameter]) -> Result:
    out = [torch.empty_like(parameter) for parameter in parameters]
    y, saved = link.forward(x, True)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED)).to(y.dtype)
    flowing = link.backward(saved, grad, out)
    return y.detach().clone(), [*out, *([] if flowing is None else [flowing])]


def _differ(found: Tensor, wanted: Tensor, least: float) -> bool:
    if not torch.isfinite(wanted).all():
        return bool((torch.isfinite(found) != torch.isfinite(wanted)).any())
    off = float((found - wanted).norm())
    return not off <= TOLERANCE * (float(wanted.norm()) + least) + 1e-12


def _kept(module: nn.Module, make: Callable[[], Made]) -> Made:
    """Call something and put back what it has done to the module's buffers and to randomness."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(SEED)
    try:
        with torch.no_grad():
            return make()
    finally:
        torch.set_rng_state(state)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
