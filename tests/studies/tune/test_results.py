"""The winner's settings are options that `sixfold train` takes."""

from sixfold.core.console.options import Parser, add_options, read_config
from sixfold.studies.tune.config import TuneConfig, base_config
from sixfold.studies.tune.results import settings_of, train_command
from sixfold.studies.tune.space import parse_search, trial_config, without_workers
from sixfold.training.config import TrainConfig


def test_the_command_gives_the_settings_again() -> None:
    texts = ("strategy=sync,local_sgd", "workers=1,2", "local-steps=2,4", "batch-size=32,64")
    dimensions = parse_search([*texts, "lr-group=a=1|b=2", "nesterov=true,false", "epochs=2,3"])
    parser = Parser()
    add_options(parser, TrainConfig)
    for strategy, local_steps in (("sync", 16), ("local_sgd", 2)):
        choice = {
            "strategy": strategy,
            "workers": 2,
            "local_steps": 2,
            "batch_size": 64,
            "lr_group": ("b=2",),
            "nesterov": True,
            "epochs": 3.0,
        }
        config = without_workers(trial_config(base_config(TuneConfig()), dimensions, choice))
        command = train_command(settings_of(config, choice)).split()
        assert "--batch-size" in command, "searched, though it is the default"
        read, wrong = read_config(TrainConfig, vars(parser.parse_args(command[2:])))
        assert not wrong
        assert not read.problems()
        for section in ("optimizer", "training", "strategy", "local_sgd"):
            assert getattr(read, section) == getattr(config, section)
        assert read.local_sgd.local_steps == local_steps
        assert read.engine.workers == (None if strategy == "sync" else 2)
