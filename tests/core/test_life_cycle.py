"""A run's settings that an older version has written."""

from sixfold.core.life_cycle import _differences, _flat, _with_defaults
from sixfold.core.run_directory import as_json
from sixfold.training.config import TrainConfig, configure


def test_settings_that_an_older_version_did_not_have_are_their_defaults() -> None:
    plain = as_json(configure(lr=0.5))
    old = {name: dict(values) for name, values in plain.items()}
    del old["selection"]
    del old["optimizer"]["ema"], old["optimizer"]["lr_group"]

    def told(config: TrainConfig) -> list[str]:
        return _differences(_flat(_with_defaults(old, config)), _flat(as_json(config)))

    assert told(configure(lr=0.5)) == []
    assert told(configure(lr=0.5, ema=0.9, early_stopping="loss")) == [
        "--ema: None -> 0.9",
        "--early-stopping:  -> loss",
    ]
