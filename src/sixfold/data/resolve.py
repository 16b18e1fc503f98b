"""From a data specification to a data set: `resolve` in the launcher, `open_data` in a rank."""

from __future__ import annotations

from sixfold.config import DataConfig
from sixfold.data import digits, synthetic
from sixfold.data.dataset import DataSet, assemble
from sixfold.errors import UserError


def resolve(
    config: DataConfig,
    *,
    pool: object = None,
    workers: int = 1,
    progress: object = None,
    cache: object = None,
) -> DataConfig:
    """Check."""
    open_data(config)
    return config


def open_data(config: DataConfig) -> DataSet:
    """Open a resolved data set."""
    kind, _, rest = config.data.partition(":")
    if kind == "digits":
        train, test = digits.load(config.resize)
        return assemble(
            name="digits",
            classes=digits.CLASSES,
            train=train,
            test=test,
            validation=config.validation,
        )
    if kind == "synthetic":
        made, made_test = synthetic.parse(rest, config.resize)
        return assemble(
            name=config.data,
            classes=synthetic.CLASSES,
            train=made,
            test=made_test,
            validation=config.validation,
        )
    raise UserError(f"--data {config.data!r}: unknown")
