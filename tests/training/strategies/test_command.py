"""`sixfold strategies` and the page say the same of every strategy."""

import re
from pathlib import Path

import pytest

from sixfold.cli import main
from sixfold.training.strategies.registry import STRATEGIES

PAGE = Path(__file__).parents[3] / "docs" / "strategies.md"


def test_the_command_lists_every_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies"]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^(\w+): ", printed, re.MULTILINE) == list(STRATEGIES)
    assert printed.count("guarantee") == printed.count("sends a step") == len(STRATEGIES)


def test_every_strategy_has_a_row_and_a_page_with_a_picture() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    for name in STRATEGIES:
        assert f"[`{name}`](#{name})" in text
        assert "```" in sections[name] or ".svg" in sections[name]
        for title in ("Guarantee", "Sends", r"When a \w+ dies", "Use it"):
            assert re.search(rf"\*\*{title}", sections[name]), (name, title)


def test_another_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", "sync"]) == 2
    assert "unknown argument sync" in capsys.readouterr().err
