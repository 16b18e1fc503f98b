"""`sixfold models`."""

import argparse

from sixfold.core.errors import raise_problems


def options(_: argparse.ArgumentParser) -> None:
    """Declare no options."""


def run(_: argparse.Namespace, problems: list[str]) -> int:
    """List the networks of the zoo."""
    raise_problems(problems)
    from sixfold.models import names

    for name, what in names().items():
        print(f"{name:<14} {what}")
    return 0
