"""Data specifications: ``kind`` or ``kind:where``, as `--data` takes them."""

import difflib
from dataclasses import dataclass

from sixfold.core.errors import UserError
from sixfold.data import paths
from sixfold.data.targets import AUTO

FORMS = {
    "digits": "digits",
    "mnist": "mnist:DIR",
    "cifar10": "cifar10:PATH",
    "cells": "cells:PATH",
    "folder": "folder:PATH",
    "images": "images:PATH",
    "parquet": "parquet:PATH",
    "shards": "shards:DIR",
    "hf": "hf:NAME",
    "synthetic": "synthetic:NxCxHxW",
}


@dataclass(frozen=True)
class Spec:
    """A specification taken apart."""

    kind: str  # one of `FORMS`
    where: str  # an absolute path, a URL, or sizes; empty for digits

    def __str__(self) -> str:
        return f"{self.kind}:{self.where}" if self.where else self.kind


@dataclass(frozen=True)
class TableOptions:
    """How a Parquet table is read."""

    image: str | None = None  # column of the images; None: found by its name
    label: str | None = None  # column of the labels; None: found by its name
    labelled: bool = True  # whether rows without a label are left out, rather than scored
    pixel_range: str | None = None  # of floating-point images; None: told from the first rows
    target: str = AUTO  # kind of the targets
    weight: str | None = None  # column of the weights; None: all rows count the same


def parse_spec(text: str) -> Spec:
    """Take a specification apart; paths become absolute.

    >>> parse_spec("digits"), str(parse_spec("mnist:/data/../mnist/"))
    (Spec(kind='digits', where=''), 'mnist:/mnist')
    """
    kind, colon, where = text.partition(":")
    if kind not in FORMS:
        near = difflib.get_close_matches(kind.lower(), FORMS, 1)
        hint = f"did you mean {FORMS[near[0]]}? " if near else ""
        raise UserError(
            f"--data {text!r}: unknown kind {kind!r}: {hint}expected {', '.join(FORMS.values())}"
        )
    if kind == FORMS[kind]:
        if colon:
            raise UserError(f"--data {text!r}: {kind} takes nothing after it")
        return Spec(kind, "")
    if not where.strip():
        raise UserError(f"--data {text!r}: expected {FORMS[kind]}")
    return Spec(kind, where if kind in ("synthetic", "hf") else paths.absolute(where))


def absolute_spec(text: str) -> str:
    """The same specification with its path made absolute: it means the same from any folder."""
    return str(parse_spec(text))
