"""Which update rules there are and what they take, without torch."""

import ast
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sixfold.core.checks import unknown
from sixfold.core.errors import UserError, raise_problems
from sixfold.training.config import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An update rule as `--optimizer` names it."""

    torch_class: str = ""  # class of torch.optim that computes it; empty for rules of our own
    vectors: int = 1  # state vectors of the length of the weights
    arguments: tuple[str, ...] = ()  # what `--optimizer-args` may give to a rule of our own
    whole_tensors: bool = False  # needs whole tensors, where others work on any slice of them


RULES = {
    "sgd": Rule(),
    "adam": Rule(vectors=2, arguments=("betas", "eps")),
    "muon": Rule(
        vectors=2,
        arguments=("momentum", "nesterov", "iterations", "betas", "eps"),
        whole_tensors=True,
    ),
    "lars": Rule(arguments=("trust", "eps"), whole_tensors=True),
    "adadelta": Rule(torch_class="Adadelta", vectors=2),
    "adagrad": Rule(torch_class="Adagrad"),
    "adamax": Rule(torch_class="Adamax", vectors=2),
    "adamw": Rule(torch_class="AdamW", vectors=2),
    # Numbers that a class keeps besides, such as NAdam's product, are stored as vectors too.
    "asgd": Rule(torch_class="ASGD", vectors=3),
    "nadam": Rule(torch_class="NAdam", vectors=3),
    "radam": Rule(torch_class="RAdam", vectors=2),
    "rmsprop": Rule(torch_class="RMSprop"),
    "rprop": Rule(torch_class="Rprop", vectors=2),
}
"""Name to rule. Those with a class of torch.optim work element by element (a test holds each to
that on slices)."""

TORCH = "torch.optim:"
ELEMENTWISE = {rule.torch_class for rule in RULES.values() if rule.torch_class} | {"SGD", "Adam"}
OTHERS = {
    "Adafactor": "keeps means over rows and columns of a tensor",
    "LBFGS": "evaluates the loss several times a step",
    "Muon": "works on matrices: give --optimizer muon",
    "SparseAdam": "takes sparse gradients only",
}
"""Classes of torch.optim that are no rules on a vector, and why."""

RESERVED = {
    "params": "follows from the network",
    "lr": "give --lr",
    "weight_decay": "give --weight-decay",
    "maximize": "losses are minimised",
    "differentiable": "updates are not differentiated",
    "capturable": "is for CUDA graphs of updates, which are made on the host",
}
"""Arguments of classes of torch.optim that are not the user's to give, and why."""


def rule_of(name: str) -> Rule:
    """The facts of a rule; a class that is not in the table is taken to keep two vectors."""
    known = RULES.get(name)
    if known is None:
        plain = name.removeprefix(TORCH)
        known = next((rule for rule in RULES.values() if rule.torch_class == plain), None)
    return known or Rule(torch_class=name.rpartition(":")[2], vectors=1 if name == SGD else 2)


SGD = TORCH + "SGD"


def state_vectors(config: OptimizerConfig) -> int:
    """How many vectors of the length of the weights an optimizer keeps, by its usual arguments."""
    average = int(config.ema is not None)
    if config.optimizer == "sgd" and not config.momentum:
        return average
    return rule_of(config.optimizer).vectors + average


def class_of(name: str) -> str:
    """`package.module:Class` of the optimizer that computes a rule; empty for our own.

    >>> class_of("adamw"), class_of("sgd"), class_of("mine:Lion")
    ('torch.optim:AdamW', '', 'mine:Lion')
    """
    if ":" in name:
        return name
    found = RULES[name].torch_class
    return TORCH + found if found else ""


def rule_problems(name: str, arguments: str) -> list[str]:
    """What is wrong with the name and the arguments of a rule at a glance, one line each."""
    found: list[str] = []
    if ":" not in name and name not in RULES:
        plain = name.removeprefix("torch.optim.").lower()
        if plain in RULES:
            dotted = name.replace("torch.optim.", TORCH)
            text = f"did you mean {plain if dotted == name else dotted}?"
        elif other := next((known for known in OTHERS if known.lower() == plain), None):
            return [f"--optimizer {name}: {_why_not(other)}"]
        else:
            text = unknown("optimizer", name, RULES)
        return [f"--optimizer {name}: {text} (also torch.optim:NAME, or package.module:Class)"]
    if name.startswith(TORCH) and (plain := name.removeprefix(TORCH)) in OTHERS:
        return [f"--optimizer {name}: {_why_not(plain)}"]
    try:
        given = parse_optimizer_args(arguments)
    except UserError as error:
        return [*found, *error.problems]
    rule = RULES.get(name)
    for key in given:
        if rule is None or rule.torch_class:
            if key in RESERVED:
                found.append(f"--optimizer-args {key}: {RESERVED[key]}")
        elif key not in rule.arguments:
            found.append(_unknown_argument(name, key, rule.arguments))
    return found


def _why_not(torch_class: str) -> str:
    return f"{OTHERS[torch_class]}, so it cannot update flat weights"


def _unknown_argument(name: str, key: str, takes: tuple[str, ...]) -> str:
    listed = f"it takes {', '.join(takes)}" if takes else "it takes none"
    if name == "sgd" and key in ("momentum", "nesterov"):
        listed = f"give --{key}"
    elif name in ("sgd", "adam"):
        torch_class = "SGD" if name == "sgd" else "Adam"
        listed += f"; torch's own class, --optimizer torch.optim:{torch_class}, takes more"
    near = get_close_matches(key, takes, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"--optimizer-args: {name} has no argument {key!r}{hint}: {listed}"


def parse_optimizer_args(text: str) -> dict[str, Any]:
    """`betas=(0.9,0.95),eps=1e-6` as keyword arguments.

    Raises:
        UserError: with a line for each that cannot be read.

    >>> parse_optimizer_args("betas=(0.9, 0.95), eps=1e-6, amsgrad=true")
    {'betas': (0.9, 0.95), 'eps': 1e-06, 'amsgrad': True}
    """
    arguments: dict[str, Any] = {}
    problems = []
    for pair in _pairs(text):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value or not name.isidentifier():
            problems.append(
                f"--optimizer-args: {pair.strip()!r} is not NAME=VALUE; write pairs with commas "
                "between, such as betas=(0.9,0.95),eps=1e-6"
            )
        elif name in arguments:
            problems.append(f"--optimizer-args: {name} is given twice")
        else:
            arguments[name] = _value(value)
    raise_problems(problems)
    return arguments


def _pairs(text: str) -> list[str]:
    """The text cut at commas that are not in brackets."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found if text.strip() else []


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
