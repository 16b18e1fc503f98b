"""`sixfold models`."""

from __future__ import annotations

import argparse


def options(_: argparse.ArgumentParser) -> None:
    """Declare no options."""


def run(_: argparse.Namespace) -> int:
    """List the networks of the zoo."""
    from sixfold.models import names

    for name, what in names().items():
        print(f"{name:<14} {what}")
    return 0
