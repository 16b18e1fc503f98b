"""The embedded digits, brought to the size that a network needs."""

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, TypeVar

from sixfold.core.events import OnEvent
from sixfold.data.config import DataConfig
from sixfold.models.config import ModelConfig

Fitted = TypeVar("Fitted", bound="WithDigits")


class WithDigits(Protocol):
    """Settings of whatever trains a network."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def data(self) -> DataConfig:
        """Which images."""

    @property
    def model(self) -> ModelConfig:
        """Which network."""


def fit_digits(
    config: Fitted, on_event: OnEvent | None = None, models_of: Iterable[ModelConfig] = ()
) -> Fitted:
    """Bring the embedded digits to the size that a network of the zoo is used for, if it needs it.

    So a command without options does something: 8x8 pixels are too few for most networks.

    Args:
        config: settings with sections `data` and `model`.
        on_event: called with a note of what was done.
        models_of: all networks that are trained, if there is not only that of the settings.
    """
    from sixfold import models
    from sixfold.models.config import ZOO

    if config.data.data != "digits" or config.data.resize is not None:
        return config
    needed = {
        model.model: ZOO[model.model][1]
        for model in (*models_of,) or (config.model,)
        if model.model in ZOO and models.check(model, shape=(1, 8, 8), classes=10)
    }
    if not needed:
        return config
    side = max(needed.values())
    if on_event is not None:
        text = f"{', '.join(needed)}: 8x8 digits are too small: --resize {side} is taken"
        on_event({"kind": "note", "text": text})
    return dataclasses.replace(config, data=dataclasses.replace(config.data, resize=side))
