"""The launcher of a compression: prune, share, code, and say what each stage costs and saves."""

from __future__ import annotations

import dataclasses
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sixfold import data
from sixfold.compression.codec.container import is_container
from sixfold.compression.codec.evaluation import EvaluateJob, evaluate_rank
from sixfold.compression.codec.export import export_onnx, onnx_problems
from sixfold.compression.codec.pipeline import (
    FILES,
    MODEL,
    RetrainingTask,
    layer_table,
    run_stages,
    unsupported,
)
from sixfold.compression.codec.plan import (
    Plan,
    as_text,
    read_bits,
    read_by_layer,
    read_sparsity,
    spread_globally,
)
from sixfold.compression.codec.retraining import Retraining
from sixfold.compression.codec.stages import Packed, dense_bytes, write_packed
from sixfold.compression.config import STAGES, CompressConfig, CompressionConfig
from sixfold.compression.loading import build_on_meta, load_network
from sixfold.compression.report import write_page
from sixfold.compression.search import Found, search
from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.files import write_atomically
from sixfold.core.life_cycle import RunKind, open_run
from sixfold.core.run_directory import RunDirectory, read_json
from sixfold.data.config import DataConfig
from sixfold.data.run import resolve_data
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for, restarts_of
from sixfold.models.config import ModelConfig
from sixfold.training.config import TrainConfig
from sixfold.training.inputs import inputs_of, warn_if_edited
from sixfold.training.model_card import pack, read_card, weights_file
from sixfold.training.run import train
from sixfold.training.sparsity import Prunable, prunable
from sixfold.training.sparsity.initialization import read_weights
from sixfold.training.sparsity.layers import left_alone, no_layers


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A compression, checked."""

    config: CompressConfig
    task: RetrainingTask
    layers: list[Prunable]
    plan: Plan
    tensors: dict[str, Tensor]


def compress(
    config: CompressConfig, *, engine: Engine | None = None, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Compress a trained network, and return the figures that `result.json` holds."""
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    settings = config.compression
    if found := _problems(config):
        raise UserError(found)
    weights = weights_file(Path(settings.run).expanduser().absolute())
    if is_container(weights):
        raise UserError(f"{weights} is compressed already: give the run it was made from")
    config = _resolve_paths(config, weights)
    card = read_card(weights, trust=settings.trust_model)
    base = _base(config.compression, weights)
    inputs = inputs_of(
        models=[ModelConfig(model=card.model, model_args=card.model_args)],
        datasets=[base.data],
        files={"RUN": str(weights)},
    )
    path = Path(str(config.compression.out))
    with open_run(KIND, config, path, inputs=inputs, on_event=on_event, started=started) as run:
        if run.finished is not None:
            return run.finished
        warn_if_edited(card, on_event)
        opening = open_engine_for(config.engine, card.model, together=True, given=engine)
        with opening as engine:
            workers = config.engine.workers or engine.slots()
            resolved = resolve_data(base.data, engine, workers, on_event)
            job = _check(config, weights, dataclasses.replace(base, data=resolved), on_event)
            run.claim(inputs.knowing(base.data, resolved))
            figures = _run(job, run.directory, engine, workers, on_event) | {
                "data": base.data.data,
                "engine": config.engine.engine,
                "workers": workers,
            }
            return run.complete(figures, functools.partial(write_page, path / "report.html"))


KIND = RunKind(
    noun="compression",
    section="compression",
    placement=("engine", "compression.onnx"),
    leftovers=("prune-*", "share", "search", "*.sixz", "*.safetensors", "*.onnx"),
)


def _problems(config: CompressConfig) -> list[str]:
    """Everything that is wrong with the settings by themselves, one line each."""
    found = config.problems()
    if config.compression.onnx is not None:
        found += [f"--onnx: {problem}" for problem in onnx_problems()]
    return found


def _resolve_paths(config: CompressConfig, weights: Path) -> CompressConfig:
    settings = config.compression
    home = weights.parent
    source = home if weights.name == "model.safetensors" else weights.with_suffix("")
    out = Path(settings.out or f"{source}-compressed").expanduser().absolute()
    if weights.resolve().is_relative_to(out.resolve()):
        raise UserError(f"--out {out}: holds the run that is compressed; choose another directory")
    return dataclasses.replace(
        config,
        compression=dataclasses.replace(
            settings,
            run=str(weights),
            out=str(out),
            onnx=str(Path(settings.onnx).expanduser().absolute()) if settings.onnx else None,
            data=data.absolute_spec(settings.data) if settings.data else None,
        ),
    )


def _base(settings: CompressionConfig, weights: Path) -> TrainConfig:
    """The settings of the training that made the network, with what was asked for otherwise."""
    known = read_json(weights.with_name("config.json"))
    if known is None and settings.data is None:
        raise UserError(
            f"{weights} has no config.json beside it that names its data: give --data SPEC"
        )
    defaults = TrainConfig()
    sections = {}
    for section in ("data", "model", "optimizer", "training"):
        default = getattr(defaults, section)
        values = (known or {}).get(section, {})
        fields = {field.name for field in dataclasses.fields(default)}
        sections[section] = type(default)(**{k: v for k, v in values.items() if k in fields})
    base = dataclasses.replace(defaults, **sections)
    if settings.data is not None:
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, data=settings.data))
    return base


def _check(config: CompressConfig, weights: Path, base: TrainConfig, on_event: OnEvent) -> _Job:
    """Hold settings, network and data against each other."""
    settings = config.compression
    card = read_card(weights, trust=settings.trust_model)
    opened = data.open_data(base.data)
    network = build_on_meta(card)
    layers, alone = prunable(network), left_alone(network)
    found = [] if layers else [no_layers(card.model, alone)]
    if tuple(opened.shape) != card.shape:
        wanted, given = ("x".join(map(str, shape)) for shape in (card.shape, opened.shape))
        found.append(f"the network was trained on {wanted} images, the data has {given}")
    if settings.max_accuracy_loss is not None and not len(opened.validation):
        found.append(
            "--max-accuracy-loss needs images to judge by that the network was not trained on: "
            "train with --validation 0.1"
        )
    sparsity: dict[str, float] = {}
    bits: dict[str, int] = {}
    try:
        sparsity = read_by_layer(settings.sparsity, layers, read_sparsity, 0.0)
    except ValueError as error:
        found.append(f"--sparsity: {error}")
    try:
        bits = read_by_layer(settings.bits, layers, read_bits, 8)
    except ValueError as error:
        found.append(f"--bits: {error}")
    if settings.scope == "global" and "=" in settings.sparsity:
        found.append("--scope global: takes a single --sparsity, not one by layer")
    if found:
        raise UserError(found)
    if alone:
        on_event({"kind": "note", "text": alone})
    tensors = read_weights(weights)
    strange = sorted(set(tensors) ^ set(network.state_dict()))
    if strange:
        raise UserError(
            f"{card.model}: tensor '{strange[0]}' of {weights} depends on values that weights have "
            "when the network is made (orthogonal parametrizations do that), so the file could not "
            "be read again: remove the parametrization before"
        )
    if settings.scope == "global":
        sparsity = spread_globally(tensors, layers, read_sparsity(settings.sparsity))
    # The network's own name and arguments, whatever the settings beside a copied file say.
    model = dataclasses.replace(base.model, model=card.model, model_args=card.model_args)
    training = dataclasses.replace(base.training, precision=card.precision)
    retraining = Retraining(
        base=dataclasses.replace(base, model=model, training=training, engine=config.engine),
        prune_epochs=settings.prune_epochs,
        share_epochs=settings.share_epochs,
        lr=base.optimizer.lr if settings.lr is None else settings.lr,
        weight_decay=(
            base.optimizer.weight_decay if settings.weight_decay is None else settings.weight_decay
        ),
        share_lr=settings.share_lr,
    )
    return _Job(
        config=config,
        task=RetrainingTask(
            weights=weights,
            card=card,
            retraining=retraining,
            stages=tuple(stage for stage in STAGES if stage in settings.stages.split(",")),
            rounds=settings.rounds,
            start=settings.kmeans_init,  # type: ignore[arg-type] # one of its choices, checked above
            coder=settings.coder,  # type: ignore[arg-type] # likewise
        ),
        layers=layers,
        plan=Plan(sparsity=sparsity, bits=bits),
        tensors=tensors,
    )


def _run(
    job: _Job, directory: RunDirectory, engine: Engine, workers: int, on_event: OnEvent
) -> dict[str, Any]:
    """Compress, evaluate, write the decompressed network."""

    def tell(text: str) -> None:
        on_event({"kind": "note", "text": text})

    for name in unsupported(job.tensors, job.plan):
        tell(f"{name} is no weight of a convolution or linear layer: stored as it is")
    plan, found, folder = job.plan, None, directory.path
    if job.config.compression.max_accuracy_loss is not None:
        bound = job.config.compression.max_accuracy_loss
        found = search(job.task, job.layers, bound, folder / "search", engine, workers, on_event)
        plan = found.plan
        packed = _repack(job, found, folder)
    else:
        trainer = functools.partial(train, engine=engine, on_event=on_event)
        packed = run_stages(job.task, plan, folder, trainer, tell)
    network, card = load_network(folder / MODEL, trusted=job.task.card.model)
    write_atomically(directory.file("model.safetensors"), pack(network, card))
    if job.config.compression.onnx is not None:
        export_onnx(network, card, Path(job.config.compression.onnx))
    result = _figures(job, plan, packed, engine, workers)
    if found is not None:
        result["search"] = found.figures
    return result


def _repack(job: _Job, found: Found, folder: Path) -> dict[str, Packed]:
    """The files that a search has found, written again into `folder`: nothing is lost by that."""
    sources = {
        "prune": found.pruned,
        "share": found.folder / FILES["share"],
        "code": found.folder / MODEL,
    }
    return {
        stage: write_packed(
            folder / FILES[stage],
            load_network(source, trusted=job.task.card.model)[0].state_dict(),
            job.task.card,
            job.task.coder if stage == "code" else "fixed",
        )
        for stage, source in sources.items()
    }


def _figures(
    job: _Job, plan: Plan, packed: dict[str, Packed], engine: Engine, workers: int
) -> dict[str, Any]:
    """What `result.json` holds of the network before and after."""
    data_config: DataConfig = job.task.retraining.base.data
    files = (job.task.weights, *(file.path for file in packed.values()))
    group = engine.run_ranks(
        functools.partial(
            evaluate_rank,
            EvaluateJob(files=files, trusted=job.task.card.model, data=data_config),
        ),
        workers,
        max_restarts=restarts_of(job.config.engine),
    )
    dense, *after = group.results[0]
    whole = dense_bytes(job.tensors)
    stages = [
        {
            "stage": stage,
            "file": file.path.name,
            "bytes": file.size_bytes,
            "ratio": round(whole / file.size_bytes, 3),
            **figures,
        }
        for (stage, file), figures in zip(packed.items(), after, strict=True)
    ]
    last = list(packed.values())[-1]
    streams = [parts for parts in last.parts.values() if parts.values]
    return {
        "model": job.task.card.model,
        "coder": job.task.coder,
        "dense": {"bytes": whole, "file_bytes": job.task.weights.stat().st_size, **dense},
        "stages": stages,
        "ratio": stages[-1]["ratio"],
        "bytes": last.size_bytes,
        "sparsity": as_text(plan.sparsity) if "prune" in packed else "",
        "bits": as_text(plan.bits) if "share" in packed else "",
        "layers": layer_table(packed),
        "stream_bytes": sum(p.position_bytes + p.value_bytes for p in streams),
        "entropy_bytes": round(sum(p.entropy_bytes for p in streams), 1),
        "unsupported": unsupported(job.tensors, plan),
    }
