"""`sixfold strategies`."""

import argparse
import textwrap

from sixfold.core.errors import raise_problems

_WIDTH = 96


def options(_: argparse.ArgumentParser) -> None:
    """Declare no options."""


def run(_: argparse.Namespace, problems: list[str]) -> int:
    """List the strategies: guarantee, traffic, when to use them."""
    raise_problems(problems)
    from sixfold.training.strategies.registry import LEGEND, STRATEGIES

    for spec in STRATEGIES.values():
        print(f"{spec.name}: {spec.what}")
        for title, text in (
            ("guarantee", spec.guarantee),
            ("sends a step", spec.sends),
            ("use it", spec.use),
            ("a rank dies", spec.lost_rank),
        ):
            print(_paragraph(title, text))
        print()
    print(textwrap.fill(LEGEND, _WIDTH))
    return 0


def _paragraph(title: str, text: str) -> str:
    """Text beside its title, wrapped."""
    return textwrap.fill(text, _WIDTH, initial_indent=f"  {title:<13} ", subsequent_indent=" " * 16)
