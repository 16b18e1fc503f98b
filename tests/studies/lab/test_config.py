from __future__ import annotations

import dataclasses

import pytest

from sixfold.cli import main
from sixfold.studies.lab.config import ConvolutionOptions, LoopnestConfig, LoopnestOptions
from sixfold.studies.lab.loopnest.study import problems


def test_the_default_is_the_slide_network() -> None:
    assert problems(LoopnestConfig()) == []


def test_every_problem_is_told_at_once() -> None:
    config = LoopnestConfig(
        convolution=ConvolutionOptions(images=0, kernel="5", stride="0,1"),
        loopnest=LoopnestOptions(designs="1,4", tile="8,x", repeats=0),
    )
    found = {*config.problems(), *problems(config)}
    assert len(found) == 6
    assert any("--kernel 5: expected 2 whole numbers" in line for line in found)
    assert any("unknown design '4'" in line for line in found)


def test_a_kernel_that_does_not_fit_is_refused() -> None:
    config = LoopnestConfig(
        convolution=dataclasses.replace(ConvolutionOptions(), size="3,3", kernel="9,9")
    )
    assert "does not fit an image" in problems(config)[0]


def test_wrong_settings_are_exit_2_without_a_session(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "loopnest", "--tile", "0"]) == 2
    assert main(["lab", "loopnest", "--master", "loca[2]"]) == 2
    assert main(["lab"]) == 2
    assert "unknown Spark master" in capsys.readouterr().err
