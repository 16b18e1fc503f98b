"""The script that completes the command line, tried by a real bash."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sixfold.cli import main
from sixfold.core.completion.command import whole_parser


def test_bash_completes_commands_options_modes_choices_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "weights.pth").touch()
    ask = """
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_sixfold
echo "${COMPREPLY[@]}"; }
ask sixfold tra
ask sixfold train --strat
ask sixfold train --engine ""
ask sixfold lca ""
ask sixfold lca encode --split ""
ask sixfold train --weights wei
"""
    script = capsys.readouterr().out + ask
    done = subprocess.run(
        [bash], input=script, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == [
        "train",
        "--strategy",
        "inline local spark",
        "learn encode",
        "train test",
        "weights.pth",
    ]


def test_every_option_of_a_path_completes_files() -> None:
    from sixfold.core.completion.command import _PATHS

    def dests(parser: object) -> set[str]:
        found = set()
        for action in parser._actions:  # type: ignore[attr-defined]
            if isinstance(action.choices, dict):
                found |= set().union(*map(dests, action.choices.values()))
            elif hasattr(action, "complete"):
                found.add(action.dest.removesuffix("_word"))
        return found

    assert dests(whole_parser()) == _PATHS


def test_a_shell_that_is_missing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2
    assert "which shell? `sixfold completion bash|zsh > FILE`" in capsys.readouterr().err
