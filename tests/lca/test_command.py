"""The options of `sixfold lca`."""

import argparse

from sixfold.core.console.options import read_config
from sixfold.lca import command
from sixfold.lca.config import LcaLearnConfig


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
