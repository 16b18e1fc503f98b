"""From `--model` and `--model-args` to a call that makes the network."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sixfold.core.errors import UserError, raise_problems
from sixfold.models.arguments import argument_problems, parameters_of, parse_arguments
from sixfold.models.config import ModelConfig, unknown_model
from sixfold.models.importing import find, importable
from sixfold.models.loaded import Used
from sixfold.models.shapes import Shape, ShapeMismatchError
from sixfold.models.user_traceback import one_line
from sixfold.models.zoo import ZOO


@dataclass(frozen=True)
class ModelFactory:
    """A factory and the keyword arguments that follow from the data and the user."""

    model: str
    factory: Callable[..., Any]
    arguments: dict[str, Any]

    @property
    def is_zoo(self) -> bool:
        """Whether the network is one of the zoo's, rather than the user's own."""
        return self.model in ZOO

    def make(self) -> nn.Module:
        """Call the factory; its network, with floating-point tensors as float32."""
        with nullcontext(Used()) if self.is_zoo else importable(self.model) as used:
            try:
                network = self.factory(**self.arguments)
            except ShapeMismatchError:
                raise
            except (Exception, SystemExit) as error:
                explained = self.is_zoo and isinstance(error, ValueError)
                said = str(error) if explained else f"{self.call()} raised {one_line(error)}"
                raise UserError(f"{self.model}: {said}{self._unnamed()}") from error
            if isinstance(network, nn.Module) and not self.is_zoo:
                used.add_classes(network)
        if not isinstance(network, nn.Module):
            raise UserError(
                f"{self.model}: {self.call()} returned {type(network).__name__}, which is no "
                "torch.nn.Module"
            )
        if why := _made_for_use(network):
            raise UserError(f"{self.model}: {why}")
        return network.float()

    def _unnamed(self) -> str:
        """What a factory that takes anything has not been given."""
        parameters = (parameters_of(self.factory) or {}).values()
        taken = [str(p) for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if self.is_zoo or not taken:
            return ""
        return (
            "; a factory is given what its signature names of num_classes, in_channels, image_size "
            f"and shape, and {', '.join(taken)} names nothing: name there what it needs"
            + (", or give --model-args NAME=VALUE" if taken[-1].startswith("**") else "")
        )

    def call(self) -> str:
        """The call as it would be written."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{getattr(self.factory, '__name__', type(self.factory).__name__)}({given})"


def _made_for_use(network: nn.Module) -> str:
    """Why a network cannot be trained, if it or a layer is a form that is made to be used."""
    for name, module in network.named_modules():
        what = f"its layer '{name}'" if name else "the network"
        if isinstance(module, torch.jit.ScriptModule):
            return (
                f"{what} is scripted or traced by torch.jit, so its weights cannot be laid out for "
                "training: return the module that was scripted, and script the network once it is "
                "trained"
            )
        # `ExportedProgram.module()` gives it a `train` that raises.
        if str(getattr(vars(module).get("train"), "__module__", "")).startswith("torch.export"):
            return (
                f"{what} comes from torch.export, which settles whether a network trains and on "
                "which sizes: return the module that was exported, and export the network once it "
                "is trained (sixfold export)"
            )
    odd = next((k for k, v in network.state_dict().items() if not isinstance(v, torch.Tensor)), "")
    if odd:
        return (
            f"'{odd}' of its state_dict is no tensor (quantized layers, and get_extra_state, have "
            "such), so it cannot be saved: return the network before it was quantized, or keep "
            "such state in buffers"
        )
    return ""


def model_factory(config: ModelConfig, *, shape: Shape, classes: int) -> ModelFactory:
    """Find the factory and decide what to call it with.

    A network of the zoo is called with `shape` and `classes`; the user's factory with those of
    `shape`, `in_shape`, `classes`, `num_classes`, `in_channels` and `image_size` (an integer, or
    (H, W) if they differ) that its signature names, or other usual names of these. `--model-args`
    come on top.
    """
    given, problems = parse_arguments(config.model_args)
    try:
        factory = _factory(config.model)
    except UserError as error:
        raise UserError([*problems, *error.problems]) from error
    known = _from_data(factory, shape, classes)
    reserved = set(known) if config.model in ZOO else set()
    problems += argument_problems(factory, given, model=config.model, reserved=reserved)
    arguments = {**known, **given}
    missing = _missing(factory, arguments)
    unnamed = [p.name for p in (parameters_of(factory) or {}).values() if _only_by_place(p)]
    if unnamed:
        problems.append(
            f"{config.model} takes {', '.join(unnamed)} by position only: arguments are given by "
            "name, so remove the / from its signature"
        )
    if missing and not problems:
        problems.append(
            f"{config.model} needs {', '.join(missing)}: give --model-args "
            + ",".join(f"{name}=..." for name in missing)
        )
    raise_problems(problems)
    return ModelFactory(config.model, factory, arguments)


def _factory(model: str) -> Callable[..., Any]:
    if model in ZOO:
        return ZOO[model]
    if ":" in model:
        return find(model)
    raise UserError(unknown_model(model))


_SHAPE = ("shape", "in_shape", "input_shape")
_CLASSES = ("classes", "num_classes", "n_classes", "num_class", "n_class", "nclass", "nb_classes")
_CHANNELS = ("in_channels", "input_channels", "in_chans", "in_ch")
_SIDE = ("image_size", "img_size")
"""How factories name what follows from the data."""


def _from_data(factory: Callable[..., Any], shape: Shape, classes: int) -> dict[str, Any]:
    """What follows from the data, as far as the factory's signature asks for it."""
    channels, rows, columns = shape
    offered: dict[str, Any] = {
        **dict.fromkeys(_SHAPE, shape),
        **dict.fromkeys(_CLASSES, classes),
        **dict.fromkeys(_CHANNELS, channels),
        **dict.fromkeys(_SIDE, rows if rows == columns else (rows, columns)),
    }
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = (parameters_of(factory) or {}).values()
    asked = {one.name for one in parameters if one.kind in by_name}
    return {name: value for name, value in offered.items() if name in asked}


def _only_by_place(parameter: inspect.Parameter) -> bool:
    is_needed = parameter.default is parameter.empty
    return parameter.kind is parameter.POSITIONAL_ONLY and is_needed


def _missing(factory: Callable[..., Any], arguments: dict[str, Any]) -> list[str]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in (parameters_of(factory) or {}).items()
        if parameter.default is parameter.empty
        and parameter.kind not in variadic
        and name not in arguments
    ]
