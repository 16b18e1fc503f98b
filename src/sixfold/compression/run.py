"""The launcher of a compression: prune, share, code, and say what each stage costs and saves."""

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
from sixfold.compression.codec.plan import (
    Plan,
    as_text,
    read_bits,
    read_by_layer,
    read_sparsity,
    spread_globally,
)
from sixfold.compression.codec.stages import (
    FILES,
    MODEL,
    CompressionTask,
    Packed,
    layer_table,
    run_stages,
)
from sixfold.compression.config import CompressConfig, CompressionConfig
from sixfold.compression.loading import build_on_meta, load_network
from sixfold.compression.report import write_page
from sixfold.compression.search import search
from sixfold.core.errors import UserError, raise_problems
from sixfold.core.events import OnEvent
from sixfold.core.files import write_atomically
from sixfold.core.life_cycle import RunKind, open_run
from sixfold.core.object_store import is_url
from sixfold.core.run_directory import RunDirectory, read_whole_json
from sixfold.core.run_store import local_out
from sixfold.data.origin import origin_problems
from sixfold.data.run import resolve_data
from sixfold.distributed.engines import Engine
from sixfold.distributed.session import open_engine_for, restarts_of
from sixfold.models.config import ModelConfig
from sixfold.models.project import refuse_edited
from sixfold.training.config import TrainConfig
from sixfold.training.inputs import inputs_of, warn_if_edited
from sixfold.training.losses.registry import accuracy_problems, with_target
from sixfold.training.model_card import pack, read_card, weights_file
from sixfold.training.run import train
from sixfold.training.sparsity import Prunable, prunable
from sixfold.training.sparsity.initialization import read_weights
from sixfold.training.sparsity.layers import left_alone, no_layers


@dataclass(frozen=True, kw_only=True)
class _Job:
    task: CompressionTask
    layers: list[Prunable]
    plan: Plan
    tensors: dict[str, Tensor]
    on_event: OnEvent

    def tell(self, text: str) -> None:
        self.on_event({"kind": "note", "text": text})


def compress(
    config: CompressConfig, *, engine: Engine | None = None, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Compress a trained network, and return the figures that `result.json` holds."""
    started = time.monotonic()
    on_event = on_event or (lambda _: None)
    settings = config.compression
    found = config.problems()
    if settings.onnx is not None:
        found += [f"--onnx: {problem}" for problem in onnx_problems()]
    raise_problems(found)
    weights = weights_file(settings.run)
    if is_container(weights):
        raise UserError(f"{weights} is compressed already: give the run it was made from")
    config = _resolve_paths(config, weights)
    card = read_card(weights, trust=settings.trust_model)
    raise_problems(accuracy_problems(card.kind, "sixfold compress"))
    base = _base(config.compression, weights)
    base = dataclasses.replace(base, data=with_target(base.data, base.loss))
    inputs = inputs_of(
        models=[ModelConfig(model=card.model, model_args=card.model_args)],
        datasets=[base.data],
        files={"RUN": str(weights)},
    )
    place = str(config.compression.out)
    with open_run(KIND, config, place, inputs=inputs, on_event=on_event, started=started) as run:
        if run.finished is not None:
            return run.finished
        warn_if_edited(card, on_event)
        opening = open_engine_for(config.engine, card.model, together=True, given=engine)
        with opening as engine:
            workers = config.engine.workers or engine.slots()
            resolved = resolve_data(base.data, engine, workers, on_event)
            job = _check(config, weights, dataclasses.replace(base, data=resolved), on_event)
            inputs = inputs.knowing(base.data, resolved)
            run.claim(inputs)
            source = inputs.source(job.task.base.model)
            job = dataclasses.replace(job, task=dataclasses.replace(job.task, source=source))
            figures = _run(job, run.directory, engine, workers) | {
                "data": base.data.data,
                "engine": config.engine.engine,
                "workers": workers,
            }
            page = run.directory.file("report.html")
            return run.complete(figures, functools.partial(write_page, page))


KIND = RunKind(
    noun="compression",
    section="compression",
    mark="compression",
    placement=("engine", "compression.onnx"),
    leftovers=("prune-*", "share", "search", "*.sixz", "*.safetensors", "*.onnx"),
)


def _resolve_paths(config: CompressConfig, weights: Path) -> CompressConfig:
    settings = config.compression
    home = weights.parent
    source = home if weights.name == "model.safetensors" else weights.with_suffix("")
    if settings.out is not None and is_url(settings.out):
        out = settings.out.rstrip("/")
        inside = f"{settings.run}/".startswith(f"{out}/")
    else:
        path = local_out(settings.out, settings.run, Path(f"{source}-compressed"))
        out, inside = str(path), weights.resolve().is_relative_to(path.resolve())
    if inside:
        raise UserError(f"--out {out}: holds the run that is compressed; choose another directory")
    return dataclasses.replace(
        config,
        compression=dataclasses.replace(
            settings,
            run=str(weights),
            out=out,
            onnx=str(Path(settings.onnx).expanduser().absolute()) if settings.onnx else None,
            data=data.absolute_spec(settings.data) if settings.data else None,
        ),
    )


def _base(settings: CompressionConfig, weights: Path) -> TrainConfig:
    """The settings of the training that made the network, with what was asked for otherwise."""
    known = read_whole_json(weights.with_name("config.json"))
    if known is None and settings.data is None:
        raise UserError(
            f"{weights} has no config.json beside it that names its data: give --data SPEC"
        )
    base = TrainConfig()
    for section in ("data", "model", "loss", "optimizer", "training"):
        default = getattr(base, section)
        values = {k: v for k, v in (known or {}).get(section, {}).items() if hasattr(default, k)}
        if section == "data" and settings.data is not None:
            values["data"] = settings.data
        base = dataclasses.replace(base, **{section: dataclasses.replace(default, **values)})
    is_vouched = settings.data is not None or settings.trust_model
    raise_problems(origin_problems(base.data.data, weights.with_name("config.json"), is_vouched))
    file = weights.with_name("config.json")
    if not settings.trust_model and (found := base.loss.origin_problems(("loss",), file)):
        raise UserError(found)
    return base


def _check(config: CompressConfig, weights: Path, base: TrainConfig, on_event: OnEvent) -> _Job:
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
    raise_problems(found)
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
    base = dataclasses.replace(
        base,
        # The network's own name and arguments, whatever the settings beside a copied file say.
        model=dataclasses.replace(base.model, model=card.model, model_args=card.model_args),
        training=dataclasses.replace(base.training, precision=card.precision),
        engine=config.engine,
    )
    return _Job(
        task=CompressionTask(weights=weights, card=card, base=base, settings=settings),
        layers=layers,
        plan=Plan(sparsity=sparsity, bits=bits),
        tensors=tensors,
        on_event=on_event,
    )


def _run(job: _Job, directory: RunDirectory, engine: Engine, workers: int) -> dict[str, Any]:
    task, plan, folder, result = job.task, job.plan, directory.path, dict[str, Any]()
    for name in plan.untouched(job.tensors):
        job.tell(f"{name} is no weight of a convolution or linear layer: stored as it is")
    bound = task.settings.max_accuracy_loss
    if bound is not None:
        inner = folder / "search"
        found = search(task, job.layers, bound, inner, engine, workers, job.on_event)
        plan, result["search"] = found.plan, found.figures
        # Written again, by which nothing is lost.
        packed = {
            stage: task.write(
                folder / FILES[stage],
                load_network(source, trusted=task.card.model)[0].state_dict(),
                task.settings.coder if stage == "code" else "fixed",
            )
            for stage, source in found.files.items()
        }
    else:

        def trainer(settings: TrainConfig) -> object:
            refuse_edited(task.card.model, task.source)
            return train(settings, engine=engine, on_event=job.on_event)

        packed = run_stages(task, plan, folder, trainer, job.tell)
    network, card = load_network(folder / MODEL, trusted=task.card.model)
    write_atomically(directory.file("model.safetensors"), pack(network, card))
    if task.settings.onnx is not None:
        export_onnx(network, card, Path(task.settings.onnx))
    return _figures(job, plan, packed, engine, workers) | result


def _figures(
    job: _Job, plan: Plan, packed: dict[str, Packed], engine: Engine, workers: int
) -> dict[str, Any]:
    task = job.task
    files = (task.weights, *(file.path for file in packed.values()))
    evaluation = EvaluateJob(files=files, trusted=task.card.model, data=task.base.data)
    group = engine.run_ranks(
        functools.partial(evaluate_rank, evaluation),
        workers,
        max_restarts=restarts_of(task.base.engine),
    )
    dense, *after = group.results[0]
    whole = sum(tensor.numel() * tensor.element_size() for tensor in job.tensors.values())
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
        "model": task.card.model,
        "coder": task.settings.coder,
        "dense": {"bytes": whole, "file_bytes": task.weights.stat().st_size, **dense},
        "stages": stages,
        "ratio": stages[-1]["ratio"],
        "bytes": last.size_bytes,
        "sparsity": as_text(plan.sparsity) if "prune" in packed else "",
        "bits": as_text(plan.bits) if "share" in packed else "",
        "layers": layer_table(packed),
        "stream_bytes": sum(p.position_bytes + p.value_bytes for p in streams),
        "entropy_bytes": round(sum(p.entropy_bytes for p in streams), 1),
        "unsupported": plan.untouched(job.tensors),
    }
