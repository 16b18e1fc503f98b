"""A run's settings that an older version, or another command, has written."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from sixfold.compression.config import CompressConfig
from sixfold.compression.run import KIND as COMPRESSION
from sixfold.core.errors import UserError
from sixfold.core.files import write_json
from sixfold.core.life_cycle import RunKind, _differences, _flat, _with_defaults, open_run, run_path
from sixfold.core.run_directory import as_json
from sixfold.lca.config import LcaLearnConfig
from sixfold.lca.run import KIND as LCA
from sixfold.lottery.config import TicketsConfig
from sixfold.lottery.run import KIND as TICKETS
from sixfold.perf.profile.config import ProfileConfig
from sixfold.perf.profile.run import KIND as PROFILE
from sixfold.studies.sweep.config import SweepDelayConfig, SweepQualityConfig, SweepTimeConfig
from sixfold.studies.sweep.run import kind_of
from sixfold.studies.tune.config import TuneConfig
from sixfold.studies.tune.run import KIND as TUNE
from sixfold.training.config import TrainConfig, configure
from sixfold.training.run import KIND as TRAINING

KINDS: list[tuple[RunKind, Any]] = [
    (TRAINING, TrainConfig()),
    (TICKETS, TicketsConfig()),
    (TUNE, TuneConfig()),
    (LCA, LcaLearnConfig()),
    (COMPRESSION, CompressConfig()),
    (PROFILE, ProfileConfig()),
    (kind_of("time"), SweepTimeConfig()),
    (kind_of("quality"), SweepQualityConfig()),
    (kind_of("delay"), SweepDelayConfig()),
]


def test_a_directory_of_another_command_is_neither_returned_nor_resumed(tmp_path: Path) -> None:
    for (_, theirs), (kind, ours) in permutations(KINDS, 2):
        write_json(tmp_path / "config.json", as_json(theirs))
        for result in ("result.json", "profile.json"):
            write_json(tmp_path / result, {"theirs": True})
        for resume in (False, True):
            section = getattr(ours, kind.section)
            if hasattr(section, "resume"):
                section = _with(section, resume=resume)
            config = _with(ours, **{kind.section: section})
            with (
                pytest.raises(UserError, match="holds a run of another command"),
                open_run(kind, config, tmp_path, on_event=lambda _: None, started=0.0),
            ):
                pass


def _with(settings: Any, **changes: Any) -> Any:
    """A copy with some fields changed, whatever the class checks."""
    made = object.__new__(type(settings))
    made.__dict__.update({**vars(settings), **changes})
    return made


def test_each_kind_of_sweep_has_a_directory_of_its_own() -> None:
    kinds = {"time": SweepTimeConfig(), "quality": SweepQualityConfig()}
    found = {run_path(config, type(config)(), f"sweep-{name}") for name, config in kinds.items()}
    assert len(found) == len(kinds)


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
