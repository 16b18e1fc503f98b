"""The options of `sixfold lca`."""

import argparse

from sixfold.core.console.options import read_config
from sixfold.lca import command
from sixfold.lca.config import LcaEncodeConfig, LcaLearnConfig


def test_lambda_is_an_option_although_it_is_a_word_of_python() -> None:
    parser = argparse.ArgumentParser()
    command.options(parser)
    values = vars(parser.parse_args(["learn", "--lambda", "0.8", "--threshold-type", "hard"]))
    config, unread = read_config(LcaLearnConfig, values)
    assert config.dynamics.lambda_ == 0.8
    assert config.dynamics.threshold_type == "hard"
    assert not unread
    wrong, unread = read_config(LcaLearnConfig, {**values, "lambda_": "much"})
    assert unread == ["--lambda 'much': expected a number"]
    assert wrong.dynamics.lambda_ == 0.1


def test_coding_changes_only_the_dynamics_that_are_given() -> None:
    parser = argparse.ArgumentParser()
    command.options(parser)
    values = vars(parser.parse_args(["encode", "--max-steps", "7", "--polish", "false"]))
    config, unread = read_config(LcaEncodeConfig, values)
    given = {name: value for name, value in vars(config.dynamics).items() if value is not None}
    assert given == {"max_steps": 7, "polish": False}
    assert not unread
    wrong, _ = read_config(LcaEncodeConfig, {**values, "form": "round", "max_steps": "0"})
    assert len(wrong.problems()) == 2
