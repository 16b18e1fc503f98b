"""Values of options as a user of PyTorch has them at hand, as the texts that they stand for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from sixfold.core.settings import hints_of
from sixfold.training.config import TrainConfig

_LISTS = ("augment", "freeze", "no_decay", "label_column")
_PAIRS = ("early_stopping", "schedule", "workers")
_MAPPINGS = ("model_args", "optimizer_args", "stop_at", "class_weights", "aux_weight", "grid")
_SEVERAL = ("lr_group", "weight_decay_group", "unfreeze", "spark_conf")
_NOTHING = (None, "", (), "none", 0)
"""Defaults of options that do nothing unless they are given: False says so too."""
_EXPECTED = {
    "augment": (
        "names, as --augment does: your own transforms belong into the data set, whose items are "
        "then read anew in each epoch"
    ),
    "schedule": (
        "a text, such as cosine or step:30, as --schedule does; for a rate of your own give a "
        "callback that returns sixfold.SetRate(factor)"
    ),
    "callback": "names; objects go into callbacks=",
}


def settled(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options as the command line has them, and what is wrong with the others, a line each.

    >>> settled({"freeze": ["a", "b"], "early_stopping": ("loss", 5), "ema": False, "loss": None})
    ({'freeze': 'a,b', 'early_stopping': 'loss:5', 'ema': None}, [])
    """
    taken: dict[str, Any] = {}
    problems: list[str] = []
    defaults = {
        name: getattr(section(), name)
        for section in hints_of(TrainConfig).values()
        for name in hints_of(section)
    }
    for name, value in options.items():
        if found := [*_misplaced(name, value)]:
            problems += found
        elif value is False and defaults.get(name, False) in _NOTHING:
            taken[name] = defaults.get(name, False)
        elif value is not None or defaults.get(name) is None:
            plain = _plain(name, value)
            taken |= {key: plain[key] for key in plain if key == name or key not in options}
    if isinstance(taken.get("optimizer"), type):
        problems += _with_class(taken, defaults)
    return taken, problems


def _with_class(taken: dict[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Let a class of optimizers have those options that are keywords of its own.

    What is wrong, a line each. torch's classes get their names, since every rank has them.
    """
    kind = taken["optimizer"]
    try:
        takes = inspect.signature(kind).parameters
    except ValueError:  # a class written in C: it is refused with all else that is none
        return []
    own = [name for name in taken if name in takes and name not in defaults]
    own += [name for name in ("momentum", "nesterov") if name in taken]
    pairs = [f"{name}={taken.pop(name)}" for name in own if name in takes]
    if pairs:
        taken["optimizer_args"] = ",".join(filter(None, [taken.get("optimizer_args"), *pairs]))
    if kind.__module__.startswith("torch.optim."):
        taken["optimizer"] = f"torch.optim:{kind.__name__}"
    return [f"{name}={taken.pop(name)}: {kind.__name__} has none" for name in own if name in taken]


def _misplaced(name: str, value: Any) -> Iterator[str]:
    """What PyTorch takes here and Sixfold does not, with what to give in its place."""
    is_called = callable(value) and not isinstance(value, str)
    has_keywords = isinstance(value, functools.partial) and not value.args
    if name == "optimizer" and is_called and not isinstance(value, type) and not has_keywords:
        yield (
            f"optimizer is a {type(value).__name__}: expected a class, such as torch.optim.AdamW, "
            "or functools.partial of one with keywords; lr= and weight_decay= are options"
        )
    if hasattr(value, "param_groups"):
        yield (
            f"{name} is an instance of {type(value).__name__}, which belongs to a copy of the "
            f"parameters: give the class, {name}={type(value).__name__}, and its settings as lr=, "
            "weight_decay=, lr_group= and optimizer_args="
        )
    elif is_called and name in _EXPECTED:
        yield f"{name} takes {_EXPECTED[name]}"
    elif name == "weights" and (isinstance(value, Mapping) or hasattr(value, "state_dict")):
        kind = "a state dict" if isinstance(value, Mapping) else f"a {type(value).__name__}"
        yield (
            f"weights is {kind}: load it into a network and give that as the model, or save it "
            "(torch.save) and give the file's path"
        )
    elif name != "class_weights" and getattr(value, "ndim", None):
        yield f"{name} is a {type(value).__name__}: expected a single value"


def _plain(name: str, value: Any) -> dict[str, Any]:
    """An option as text or number; the keywords of a `functools.partial` are options too."""
    if name == "class_weights":
        value = value.tolist() if hasattr(value, "tolist") else value
        value = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
    kind = type(value)
    if isinstance(value, Mapping) and name in _MAPPINGS:
        value = ",".join(f"{key}={each}" for key, each in value.items())
    elif isinstance(value, Mapping) and name in _SEVERAL:
        value = tuple(f"{key}={_word(each)}" for key, each in value.items())
    elif isinstance(value, (list, tuple)) and name in _LISTS:
        value = ",".join(map(str, value))
    elif isinstance(value, tuple) and name in _PAIRS:
        value = ":".join(map(str, value))
    elif isinstance(value, timedelta):
        value = f"{value.total_seconds():g}s"
    elif name == "tls" and isinstance(value, bool):
        value = _word(value)
    elif kind.__module__ == "torch" and kind.__name__ in ("dtype", "device"):
        value = str(value).removeprefix("torch.").replace("bfloat16", "bf16")
    elif name == "optimizer" and isinstance(value, functools.partial) and not value.args:
        own: dict[str, Any] = {
            key: value.keywords[key] for key in ("lr", "weight_decay") if key in value.keywords
        }
        rest = {key: each for key, each in value.keywords.items() if key not in own}
        return {name: value.func, **own, **(_plain("optimizer_args", rest) if rest else {})}
    return {name: value}


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
