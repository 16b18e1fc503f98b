"""The docs are true: commands parse, paths exist, the README runs word for word."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sixfold.cli import COMMANDS
from sixfold.core.console.options import Parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in (*DOCS.glob("*.md"), ROOT / "README.md"))


def blocks(page: Path, *languages: str) -> list[str]:
    return [
        text
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S)
        if language in languages
    ]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `sixfold COMMAND ...` of a page, in blocks and within lines."""
    inline = re.findall(r"`(sixfold [a-z][^`]*)`", page.read_text())
    lines = "\n".join([*blocks(page, "sh"), *inline]).replace("\\\n", " ").splitlines()
    for line in lines:
        if re.match(r"(\S*/)?sixfold [a-z]", line) and "|" not in line:
            yield [word for word in shlex.split(line, comments=True)[1:] if word != "..."]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_take_the_options_that_the_page_gives(page: Path) -> None:
    for words in commands(page):
        command = importlib.import_module(f"{COMMANDS[words[0]].package}.command")
        parser = Parser(prog=f"sixfold {words[0]}", allow_abbrev=False)
        command.options(parser)
        given = {word.strip("[]").partition("=")[0] for word in words[1:]}
        given = {word for word in given if word.startswith("--")}
        modes = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
        chosen = [choices[word] for choices in modes for word in words[1:2] if word in choices]
        parsers = chosen or [parser, *(mode for choices in modes for mode in choices.values())]
        known = set(re.findall(r"--[a-z][\w-]*\w", "".join(p.format_help() for p in parsers)))
        assert given <= known | {"--help"}, f"{page.name}: sixfold {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`([a-z_0-9]+(?:/[a-z_0-9]+)+\.(?:py|c|inc|html))`", page.read_text()))
    places = (ROOT, ROOT / "src" / "sixfold", DOCS)
    assert not {name for name in named if not any((place / name).exists() for place in places)}


def test_the_readme_and_the_glossary_are_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert (DOCS / "glossary.md").read_text().count("\n: ") <= 12


def test_every_page_is_in_the_index() -> None:
    listed = set(re.findall(r"^([a-z]+)$", "\n".join(blocks(DOCS / "index.md", "")), re.M))
    listed |= set(re.findall(r"^([a-z]+)$", (DOCS / "index.md").read_text(), re.M))
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= listed


@pytest.mark.full
@pytest.mark.spark
@pytest.mark.timeout(1800)
def test_the_readme_runs_word_for_word(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S):
        if code.startswith("make"):
            continue
        if code.startswith("from torch import nn"):
            (tmp_path / "net.py").write_text(code)
            continue
        words = [sys.executable, "-c", code] if language == "python" else ["bash", "-ec", code]
        environment = {**os.environ, "PATH": path}
        subprocess.run(words, cwd=tmp_path, env=environment, check=True, timeout=900)
    assert (tmp_path / "scores.parquet").is_file()
    assert (tmp_path / "runs" / "small" / "model.sixz").is_file()


@pytest.mark.full
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "train" in (tmp_path / "python.html").read_text()
