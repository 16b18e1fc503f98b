"""From the arguments of `sixfold.train` to settings: everything that is wrong at once."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sixfold.api.frames import is_frame, write_frames
from sixfold.api.values import settled
from sixfold.core.environment import cache_directory
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import make_folder
from sixfold.core.settings import build_tree, readable
from sixfold.data.config import HANDED_OVER, DataConfig
from sixfold.data.given import TEST_FRACTION, Source, write_given
from sixfold.data.given_sources import parts_of
from sixfold.data.manifest import VALIDATION, load_manifest
from sixfold.distributed.engines import Engine
from sixfold.training.config import TrainConfig
from sixfold.training.losses.registry import with_target
from sixfold.training.objects import packed, problems_without, with_values

_DEFAULTS = {"model": "lenet5", "loss": "cross_entropy", "optimizer": "sgd"}
"""What stands for the user's own objects until they have names."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What `sixfold.train` was called with, besides options."""

    model: Any
    data: Any
    validation: Any
    test: Any
    engine: Any
    callbacks: Sequence[Any] = ()


class Arguments:
    """The arguments of one call; `engine` is an open engine, if one was given."""

    def __init__(
        self,
        given: Given,
        options: Mapping[str, Any],
        *,
        problems: Sequence[str] = (),
        purpose: str = "",
    ) -> None:
        """Args: `problems` are told with all others; `purpose` begins a run directory's name."""
        self._problems, self._purpose = list(problems), purpose
        self._options, wrong = settled(options)
        self._problems += wrong
        self._objects: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}
        self._whole: TrainConfig | None = None
        self._all_train = False
        callbacks = () if given.callbacks is None else given.callbacks
        self._callbacks = [*callbacks] if isinstance(callbacks, (list, tuple)) else [callbacks]
        self.engine: Engine | None = None
        self._take_model(given.model)
        self._take_data(given)
        self._take_engine(given.engine)
        for name in ("loss", "optimizer"):
            if callable(value := self._options.get(name)):
                self._objects[name] = value
                del self._options[name]

    def _take_model(self, model: Any) -> None:
        if isinstance(model, TrainConfig):
            self._whole = model
            if self._options:
                named = ", ".join(sorted(self._options))
                self._problems.append(f"{named}: not together with a TrainConfig, which has them")
        elif isinstance(model, str):
            self._options["model"] = model
        elif callable(model):
            self._objects["model"] = model
        elif model is not None:
            self._problems.append(
                f"model is a {type(model).__name__}: expected a network, a class or function that "
                "builds one, or a name"
            )

    def _take_data(self, given: Given) -> None:
        if isinstance(given.data, (str, Path)):
            self._options["data"] = str(given.data)
        elif given.data is not None:
            self._parts["data"] = given.data
            self._options["data"] = HANDED_OVER
        for name in ("validation", "test"):
            if getattr(given, name) is True:
                self._problems.append(f"{name}=True: give a share, such as 0.1, or data")
        if given.validation is not None and not isinstance(given.validation, bool):
            if _is_share(given.validation):
                self._options["validation"] = given.validation
            else:
                self._parts["validation"] = given.validation
        if given.test is False:
            self._all_train = True
        elif _is_share(given.test):
            self._options["test_split"] = given.test
        elif given.test is not None and given.test is not True:
            self._parts["test"] = given.test
        if (self._parts or self._all_train) and self._whole is not None:
            self._problems.append("data: not together with a TrainConfig, which names them")

    def _take_engine(self, engine: Any) -> None:
        if isinstance(engine, str):
            self._options["engine"] = engine
        elif hasattr(engine, "run_ranks"):
            self.engine = engine
            if self._whole is None and hasattr(engine, "name"):
                self._options["engine"] = engine.name
        elif engine is not None:
            self._problems.append(
                f"engine is a {type(engine).__name__}: expected inline, local or spark, or an open "
                "engine"
            )

    @contextmanager
    def settled(self, on_event: OnEvent) -> Iterator[TrainConfig]:
        """The settings, with objects and data where ranks find them; a `UserError` if wrong.

        What was put into a run directory goes again if the run is refused.
        """
        config = self._checked()
        own_loss = "loss" in self._objects
        asked = config.data if own_loss else with_target(config.data, config.loss)
        if self._all_train and not self._parts and not _has_test_part(asked):
            config = with_values(config, {"test_split": 0.0})
        elif self._parts or self._all_train:
            are_frames = [is_frame(part) for part in self._parts.values()]
            frames: dict[str, str] = {}
            if any(are_frames):
                frames = write_frames(self._parts, asked, config.run.out, on_event)
            if all(are_frames) and "data" in frames:
                asked = dataclasses.replace(
                    asked, data=frames["data"], test_split=self._set_aside(config.data), resize=None
                )
            else:
                self._parts |= frames
                asked = dataclasses.replace(asked, data=self._written(asked, on_event))
            data = dataclasses.replace(
                config.data,
                data=asked.data,
                test_split=asked.test_split,
                resize=asked.resize,
                image_column=None,
                label_column=None,
                weight_column=None,
                pixel_range=None,
            )
            config = dataclasses.replace(config, data=data)
        with packed(config, self._objects, self._callbacks, self._purpose) as config:
            yield config

    def _checked(self) -> TrainConfig:
        """The settings without objects and data, checked as far as that goes."""
        problems, config = list(self._problems), self._whole
        if config is None:
            # What a run that is resumed has of these is not what was given.
            options = {name: _DEFAULTS[name] for name in self._objects} | self._options
            try:
                config = build_tree(TrainConfig, options)
            except UserError as error:
                problems += error.problems
                config = readable(TrainConfig, options)
        else:
            config = with_values(config, self._options)
        problems += problems_without(config, self._objects)
        if problems:
            raise UserError(dict.fromkeys(problems))
        return config

    def _set_aside(self, config: DataConfig) -> float | None:
        """The share of a DataFrame's rows that is for testing."""
        if self._all_train:
            return 0.0
        if "test" in self._parts:
            return None
        return TEST_FRACTION if config.test_split is None else config.test_split

    def _written(self, config: DataConfig, on_event: OnEvent) -> str:
        """The data as tensor shards in the cache."""

        def progress(done: int, total: int) -> None:
            on_event({"kind": "prepare", "done": done, "total": max(total, done)})

        root = cache_directory() / "data"
        make_folder(root, "SIXFOLD_CACHE")
        with tempfile.TemporaryDirectory(dir=root, prefix=".scratch-") as scratch:
            parts = self._sources(config, Path(scratch))
            live = parts["train"].live if "train" in parts else None
            reading = None
            if live is not None:
                self._objects["reread"] = live
                names = ("resize", "image_column", "label_column")
                reading = {name: getattr(config, name) for name in names}
                told = "data: items differ from reading to reading: read anew in each epoch"
                on_event({"kind": "note", "text": told})
            shares = config.test_split is None and not self._all_train
            spec = write_given(
                parts,
                cut_test=shares or config.test_split is not None,
                target=config.target,
                on_error=config.on_error,
                reading=reading,
                progress=progress,
            )
        on_event({"kind": "note", "text": f"data: written once for all ranks, to {spec}"})
        if load_manifest(Path(spec.removeprefix("shards:"))).dtype == "float32":
            told = "data: pixels are no 8-bit values: kept as the float32 numbers that they are"
            on_event({"kind": "note", "text": told})
        return spec

    def _sources(self, config: DataConfig, scratch: Path) -> dict[str, Source]:
        problems: list[str] = []
        parts: dict[str, Source] = {}
        for what in ("data", "validation", "test"):
            thing = self._parts.get(what, config.data if what == "data" else None)
            if thing is None:
                continue
            try:
                found = parts_of(thing, what, config, scratch)
            except UserError as error:
                problems += error.problems
                continue
            if what == "data":
                parts |= found
                # The other parts are in the same units, however dark they are.
                pixel_range = config.pixel_range or found["train"].pixel_range or None
                config = dataclasses.replace(config, pixel_range=pixel_range)
            else:
                parts[VALIDATION if what == "validation" else what] = found["train"]
        if self._all_train:
            parts.pop("test", None)
        raise_problems(problems)
        return parts


def _has_test_part(config: DataConfig) -> bool:
    """Whether what a specification names has a test part that was not cut from one set."""
    from sixfold.data.registry import open_data, resolve

    plain = dataclasses.replace(config, validation=0.0, test_split=None, max_images=None)
    opened = open_data(resolve(plain))
    return opened.own_test and not opened.split.startswith("80/20")


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
