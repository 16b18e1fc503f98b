"""Whether a network fits the data, found out before anything is started."""

import warnings
from bisect import bisect_left
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sixfold.core.errors import UserError
from sixfold.models.building import seeded
from sixfold.models.conduct import INEXACT, conduct
from sixfold.models.config import ZOO, ModelConfig
from sixfold.models.factory import ModelFactory, model_factory
from sixfold.models.observe import rewinder
from sixfold.models.outputs import main_output, named_outputs
from sixfold.models.shapes import Shape, ShapeMismatchError, kind, run, times
from sixfold.models.trial import modes_kept
from sixfold.models.user_traceback import one_line

USUAL_SIDES = (28, 32, 64, 96, 128, 224, 227, 256, 299)
"""Of data sets and of networks that were made for one of them, in pixels."""

_LARGEST_SIDE = 512
"""Where the search for the smallest images that a network takes gives up, in pixels."""


def check(
    config: ModelConfig,
    *,
    shape: Shape,
    classes: int,
    divided: bool = False,
    tell: Callable[[str], None] | None = None,
) -> list[str]:
    """Run the network without computing anything, and say what does not fit, a line each.

    The user's own network is then run with values, to see what its forward does besides
    (`sixfold.models.conduct`), unless it is `divided` and so may be too large for one process.
    `tell` takes what makes the result depend on the workers; without it that is a problem.

    >>> for problem in check(ModelConfig(model="lenet5"), shape=(1, 8, 8), classes=10):
    ...     print(problem)
    lenet5 cannot take 1x8x8 images: layer 'features.2' (Conv2d 20->50, kernel 5x5) would get a \
2x2 map; images of at least 16x16 are needed: use --resize 28
    """
    try:
        chosen = model_factory(config, shape=shape, classes=classes)
    except UserError as error:
        return list(error.problems)
    # The user's code may do what needs values, and what it remembers may not be of two devices.
    device = "meta" if chosen.is_zoo or divided else "cpu"
    problems = _try(chosen, shape, classes, device=device, divided=divided)
    if problems and chosen.is_zoo:
        return [problems[0] + _smallest(config, shape, classes), *problems[1:]]
    if problems and divided:
        device = "cpu"
        problems = _try(chosen, shape, classes, device=device, divided=divided)
    if problems and not divided and " cannot take " in problems[0]:
        problems = [problems[0] + _fitting(config, shape, classes), *problems[1:]]
    if problems or chosen.is_zoo:
        return problems
    found = conduct(chosen.make, shape, device=device)
    state = [f"{chosen.model}: {text}" for text in found.state]
    if tell is not None:
        for text in state:
            tell(text.removesuffix(INEXACT))
    return [f"{chosen.model}: {text}" for text in found.broken] + (state if tell is None else [])


def fails_on_one_image(
    config: ModelConfig, *, shape: Shape, classes: int, divided: bool = False
) -> tuple[str, bool]:
    """Why a network that fits cannot be trained on a single image, as batch-norm over it cannot.

    Empty if it can; and whether it has batch-norm. No values are computed if it is `divided`.
    """
    chosen = model_factory(config, shape=shape, classes=classes)
    device = "meta" if chosen.is_zoo or divided else "cpu"
    with seeded(0), torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a division by N - 1
        try:
            network = chosen.make().train()
        except UserError:
            if device == "cpu":
                raise
            return "", False  # it cannot be divided, as its division will tell
        run(network, torch.randn(2, *shape))  # lazy layers take their sizes
        has_norm = any(isinstance(module, _BatchNorm) for module in network.modules())
        try:
            output = main_output(run(network, torch.randn(1, *shape)))
        except ShapeMismatchError as error:
            return str(error), has_norm
        buffers = [b for b in network.buffers() if b.is_floating_point()]
        if device == "cpu" and not all(bool(t.isfinite().all()) for t in (output, *buffers)):
            return "what it computes of one image is not a finite number", has_norm
    return "", has_norm


def _fitting(config: ModelConfig, shape: Shape, classes: int) -> str:
    """A usual size of images that the user's own network takes, and the remedy."""
    for side in USUAL_SIDES:
        square = (shape[0], side, side)
        chosen = model_factory(config, shape=square, classes=classes)
        if square != shape and not _try(chosen, square, classes, device="cpu"):
            return f"; it takes {side}x{side}: use --resize {side}"
    return ""


def _try(
    chosen: ModelFactory, shape: Shape, classes: int, *, device: str, divided: bool = False
) -> list[str]:
    """Make the network and run it, in training and for a single image; what is wrong."""
    try:
        with seeded(0), torch.device(device), modes_kept():
            network = chosen.make()
            rewind = rewinder(network)
            try:
                for training, batch in ((True, 2), (False, 1)):
                    try:
                        network.train(training)
                    except Exception as error:
                        return [f"{chosen.model}: its train({training}) raised {one_line(error)}"]
                    output = run(network, torch.zeros(batch, *shape))
                    problem = _output_problem(output, batch, classes, network, divided=divided)
                    if problem:
                        return [f"{chosen.model}: {problem}"]
            finally:
                rewind()
    except ShapeMismatchError as error:
        return [f"{chosen.model} cannot take {times(shape)} images: {error}"]
    except UserError as error:
        return list(error.problems)
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if odd := next((name for name, parameter in trained if parameter.is_complex()), None):
        return [
            f"{chosen.model}: its parameter '{odd}' is complex: keep real and imaginary part as "
            "two parameters, and put them together by torch.complex"
        ]
    if not trained:
        return [f"{chosen.model}: the network has no parameters to train"]
    return []


def _output_problem(
    output: Any, batch: int, classes: int, network: nn.Module, *, divided: bool
) -> str:
    """What is wrong with a network's output for a batch of images."""
    when = "in training" if network.training else "in evaluation"
    wanted = f"a tensor of {batch}x{classes} (batch x classes)"
    several = named_outputs(output)
    if len(several) > 1 and divided:
        return (
            f"it has {len(several)} outputs {when} ({', '.join(several)}): --strategy "
            "model_parallel takes networks with one"
        )
    output = main_output(output)
    if not isinstance(output, Tensor):
        return f"its output {when} is a {type(output).__name__}, not {wanted}"
    if not output.is_floating_point():
        return f"its output {when} is of type {output.dtype}, not floating-point logits"
    given = tuple(output.shape)
    if given == (batch, classes):
        return ""
    found = f"its output for a batch of {batch} is {times(given) or 'a single number'}"
    return f"{found}, not {wanted}{_output_remedy(given, batch, classes, network)}"


def _output_remedy(given: tuple[int, ...], batch: int, classes: int, network: nn.Module) -> str:
    if given[:1] != (batch,):
        return ": keep dim 0 for the batch, as x.flatten(1) does and x.squeeze() does not"
    if given[1:2] == (classes,) and prod(given[2:]) == 1:
        return ": end it with nn.Flatten()"
    if given[1:2] == (classes,):
        return ": average over the dims behind the classes, or flatten before the last layer"
    linear = [
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)
    ]
    if len(given) == 2 and linear and linear[-1][1].out_features == given[1]:
        name, layer = linear[-1]
        return (
            f": the data has {classes} classes, so its last layer '{name}' ({kind(layer)}) must "
            f"give {classes}; let the factory take `classes` or `num_classes`, or pass it with "
            "--model-args"
        )
    return ""


def _smallest(config: ModelConfig, shape: Shape, classes: int) -> str:
    """The least images that a network of the zoo takes, and the remedy."""

    def fits(side: int) -> bool:
        square = (shape[0], side, side)
        chosen = model_factory(config, shape=square, classes=classes)
        return not _try(chosen, square, classes, device="meta")

    # A network of the zoo that takes some size takes every larger one (a test holds this).
    side = 1 + bisect_left(range(1, _LARGEST_SIDE + 1), True, key=fits)
    if side > _LARGEST_SIDE:
        return ""
    usual = max(side, ZOO[config.model][1])
    return f"; images of at least {side}x{side} are needed: use --resize {usual}"
