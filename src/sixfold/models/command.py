"""`sixfold models`."""

import argparse

from sixfold.core.errors import UserError


def options(_: argparse.ArgumentParser) -> None:
    """Declare no options."""


def run(_: argparse.Namespace, problems: list[str]) -> int:
    """List the networks of the zoo."""
    if problems:
        raise UserError(problems)
    from sixfold.models import names

    for name, what in names().items():
        print(f"{name:<14} {what}")
    return 0
