"""The networks that can be named on the command line."""

from collections.abc import Callable
from importlib import import_module

from torch import nn

from sixfold.models import config

ZOO: dict[str, Callable[..., nn.Module]] = {
    name: getattr(import_module(f"sixfold.models.{module}"), name)
    for name, (module, _) in config.ZOO.items()
}
"""Name -> factory, called as `factory(shape, classes, **arguments)`; in the help's order."""


def names() -> dict[str, str]:
    """Every network of the zoo, with a line on what it is."""
    return {name: str(factory.__doc__).strip().splitlines()[0] for name, factory in ZOO.items()}
