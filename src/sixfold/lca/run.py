"""The launchers of sparse coding: learning a dictionary, and coding images with one."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sixfold import data
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import file_problems, folder_of_parts, space_explained, write_json
from sixfold.core.life_cycle import Run, RunKind, open_run, run_path
from sixfold.core.locks import held
from sixfold.core.run_directory import RunDirectory
from sixfold.core.run_store import local_run
from sixfold.core.version import versions
from sixfold.data.config import DataConfig
from sixfold.data.run import resolve_data
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for, restarts_of
from sixfold.lca.config import DictionaryConfig, DynamicsConfig, LcaEncodeConfig, LcaLearnConfig
from sixfold.lca.geometry import Geometry, pair
from sixfold.lca.results import EncodeResult
from sixfold.training.inputs import Inputs, inputs_of

MOVIES = "movies:"
KIND = RunKind(mark="learn", placement=("engine", "learn.grid"), ranks_publish=True)


def lca_learn(
    config: LcaLearnConfig, *, engine: Engine | None = None, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Learn a dictionary and return the figures that `result.json` holds.

    An `engine` that is given is left open. A `UserError` if settings, data or cluster do not fit:
    nothing is left behind; a `RunError` if the run failed: its directory keeps the last checkpoint.
    """
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    raise_problems(learn_settings_problems(config))
    config = _resolve_paths(config)
    out, inputs = str(config.run.out), _inputs(config)
    with open_run(KIND, config, out, inputs=inputs, on_event=on_event, started=started) as run:
        if run.finished is not None:
            return run.finished
        with open_engine_for(config.engine, together=True, given=engine) as engine:
            workers = config.engine.workers or engine.slots()
            job = _learn_job(config, run.directory, engine, workers, on_event)
            run.claim()
            return _run_learn(job, run, engine, workers, on_event)


def learn_settings_problems(config: LcaLearnConfig) -> list[str]:
    """Everything that is wrong and can be told without reading any image."""
    found, sizes = config.problems(), config.dictionary
    if not config.input.data.startswith(MOVIES):
        found += _data_config(config).problems()
    for flag, text in (
        ("--kernel", sizes.kernel),
        ("--padding", sizes.padding),
        ("--stride", sizes.stride),
    ):
        try:
            if text not in ("full", "half") or flag == "--stride":
                pair(text, flag)
        except UserError as error:
            found += error.problems
    return found


def _inputs(config: LcaLearnConfig) -> Inputs:
    files: dict[str, str | None] = {"--list": config.learn.list}
    if not config.input.data.startswith(MOVIES):
        return inputs_of(datasets=[_data_config(config)], files=files)
    folder = Path(config.input.data.removeprefix(MOVIES))
    movies = [path for path in folder.rglob("*") if path.is_file()]
    return inputs_of(files=files | {f"--data {path.name}": str(path) for path in movies})


def _data_config(config: LcaLearnConfig) -> DataConfig:
    given = config.input
    return DataConfig(data=given.data, resize=given.resize, on_error=given.on_error)


def _resolve_paths(config: LcaLearnConfig) -> LcaLearnConfig:
    listing, replace = config.learn.list, dataclasses.replace
    absolute = None if listing is None else str(Path(listing).expanduser().absolute())
    return replace(
        config,
        input=replace(config.input, data=_absolute_spec(config.input.data)),
        learn=replace(config.learn, list=absolute),
        run=replace(config.run, out=run_path(config, LcaLearnConfig(), "lca")),
    )


def _absolute_spec(spec: str) -> str:
    if spec.startswith(MOVIES):
        return MOVIES + str(Path(spec.removeprefix(MOVIES)).expanduser().absolute())
    return data.absolute_spec(spec)


def _resolved(asked: DataConfig, engine: Engine, workers: int, on_event: OnEvent) -> DataConfig:
    is_movies = asked.data.startswith(MOVIES)
    return asked if is_movies else resolve_data(asked, engine, workers, on_event)


def _learn_job(
    config: LcaLearnConfig, directory: RunDirectory, engine: Engine, workers: int, on_event: OnEvent
) -> Any:
    """Check data, sizes and grid against each other."""
    from sixfold.lca.inputs import ImageSource, open_images
    from sixfold.lca.order import order_of
    from sixfold.lca.phases import Phases
    from sixfold.lca.tiles import grid_of, grid_problems
    from sixfold.lca.worker import LearnJob

    source = ImageSource(
        data=_resolved(_data_config(config), engine, workers, on_event),
        split=config.input.split,
        max_images=config.input.max_images,
        listing=config.learn.list,
    )
    images = open_images(source)
    geometry = make_geometry(config.dictionary, images.shape)
    order_of(config.learn, images.count, images.movies)
    mesh = grid_of(config.learn.grid, workers).mesh
    found = grid_problems(mesh, Phases(geometry))
    if config.dynamics.form == "gram" and not geometry.gram_is_exact:
        found.append(
            "--form gram: with padding and --boundary free atoms at the edge are cut off and "
            "their products differ: use --form residual, or --boundary zero"
        )
    if config.dynamics.form == "gram" and mesh.size > 1:
        found.append("--form gram: a grid that divides images computes in residual form")
    raise_problems(found)
    if images.bad:
        on_event({"kind": "note", "text": f"{len(images.bad)} images were skipped"})
    return LearnJob(config=config, source=source, geometry=geometry, claim=directory.ticket())


def make_geometry(config: DictionaryConfig, shape: tuple[int, int, int]) -> Geometry:
    """The sizes that the settings ask for, for images of a shape (C, H, W)."""
    channels, height, width = shape
    if config.kernel == "full":
        kernel, stride, padding = (height, width), (1, 1), (0, 0)
    else:
        kernel, stride = pair(config.kernel, "--kernel"), pair(config.stride, "--stride")
        half = kernel[0] // 2, kernel[1] // 2
        padding = half if config.padding == "half" else pair(config.padding, "--padding")
    return Geometry(
        channels=channels,
        height=height,
        width=width,
        atoms=config.atoms,
        kernel=kernel,
        stride=stride,
        padding=padding,
        boundary=config.boundary,
    )


def _run_learn(
    job: Any, run: Run, engine: Engine, workers: int, on_event: OnEvent
) -> dict[str, Any]:
    from sixfold.lca.report import write_page
    from sixfold.lca.worker import learn_rank

    config, directory = job.config, run.directory
    before_s = time.monotonic() - run.started
    group = engine.run_ranks(
        functools.partial(learn_rank, job),
        workers,
        max_restarts=restarts_of(config.engine),
        claim=directory.claim,
        on_event=lambda _, event: on_event(event),
        log=directory.file("log.txt"),
    )
    figures = {
        **group.results[0],
        "startup_s": round(before_s + group.startup_s, 3),
        "engine": config.engine.engine,
        "workers": workers,
        "grid": config.learn.grid,
        "restarts": group.restarts,
    }
    return run.complete(figures, lambda _: write_page(directory.path))


def lca_encode(
    config: LcaEncodeConfig, *, engine: Engine | None = None, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Code images with a learned dictionary, into Parquet or Arrow; figures as in ``FILE.json``.

    Dynamics that are None are those of the learning; an `engine` that is given is left open. A
    `UserError` if dictionary, data or settings do not fit, a `RunError` if a worker failed.
    """
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    encode, found = config.encode, config.problems()
    if not encode.run:
        found.append("give the dictionary: sixfold lca encode RUN --data SPEC --out FILE")
    out = Path(encode.out).expanduser().absolute()
    if not encode.out:
        found.append("--out FILE: give the Parquet or Arrow file for the codes")
    elif out.suffix not in (".parquet", ".arrow", ".feather"):
        found.append(f"--out {out}: must end in .parquet, .arrow or .feather")
    else:
        found += file_problems("--out", out)
    raise_problems(found)

    from sixfold.lca.dictionary import dictionary_file, load_dictionary

    file = dictionary_file(local_run(encode.run))
    learned = load_dictionary(file)
    given = {name: v for name, v in vars(config.dynamics).items() if v is not None}
    dynamics = dataclasses.replace(learned.dynamics, **given)
    raise_problems(dynamics.problems())
    with held(out, is_file=True), open_engine_for(config.engine, given=engine) as opened:
        result = _encode(config, opened, learned, file, dynamics, out, on_event)
        spent = time.monotonic() - started
        result = dataclasses.replace(
            result,
            engine=config.engine.engine,
            wall_s=round(spent, 3),
            images_per_s=round(result.images / spent, 3),
            versions=versions(),
        )
        write_json(out.with_name(out.name + ".json"), vars(result))
    return vars(result)


def _encode(
    config: LcaEncodeConfig,
    engine: Engine,
    learned: Any,
    file: Path,
    dynamics: DynamicsConfig,
    out: Path,
    on_event: OnEvent,
) -> EncodeResult:
    from sixfold.lca.encoding import EncodeJob, encode_part, join_parts
    from sixfold.lca.inputs import ImageSource, open_images

    encode, geometry = config.encode, learned.geometry
    spec = _absolute_spec(encode.data or learned.data)
    side = geometry.height if geometry.height == geometry.width else None
    workers = config.engine.workers or engine.slots()
    asked = DataConfig(data=spec, resize=side, on_error=encode.on_error)
    source = ImageSource(
        data=_resolved(asked, engine, workers, on_event),
        split=encode.split,
        max_images=encode.max_images,
    )
    images = open_images(source)
    if images.shape != geometry.image:
        raise UserError(
            f"--data {spec}: images are {images.shape}, the dictionary was learned for "
            f"{geometry.image}"
        )
    frames = encode.warm_start == "frame"
    if frames and not images.movies:
        raise UserError("--warm-start frame: the data hold no movies; use --data movies:PATH")
    starts = range(0, images.count, encode.chunk)
    cuts = images.movies if frames else [(start, encode.chunk) for start in starts]
    pieces = [(start, min(start + count, images.count)) for start, count in cuts]
    coded = 0

    def note(_: int, sums: Mapping[str, float]) -> None:
        nonlocal coded
        coded += int(sums["images"])
        on_event({"kind": "coded", "images": coded, "total": images.count})

    with folder_of_parts(out) as parts:
        job = EncodeJob(
            dictionary=file,
            dynamics=dynamics,
            source=source,
            parts=parts,
            frames=frames,
            trace=encode.trace,
        )
        sums = engine.pool(
            functools.partial(encode_part, job),
            [(number, *piece) for number, piece in enumerate(pieces)],
            workers=workers,
            on_done=note,
        )
        with space_explained(out.parent):
            join_parts(job, learned, out)
    total = {name: sum(part[name] for part in sums) for name in sums[0]}
    n = total["images"]
    return EncodeResult(
        images=int(n),
        energy=total["energy"] / n,
        error=total["squares"] / max(total["power"], 1e-300),
        sparsity=1 - total["active"] / n / geometry.codes,
        steps=total["steps"] / n,
        certified=total["done"] / n,
        file=str(out),
        run=str(file),
        data=spec,
        workers=workers,
    )
