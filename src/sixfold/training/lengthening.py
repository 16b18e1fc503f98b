"""Training on: a run that is resumed with another length than it began with.

Where nothing in a training depends on its length the weights are those of a run that had this
length from the beginning, bit for bit: `sync` and `model_parallel` with `--schedule constant`,
`step`, `multistep` or `restarts`. With others, such as `cosine`, the steps that are done had the
learning rates of the old length; early stopping and plateaus have not seen an evaluation at the old
end; and `local_sgd`, `hogwild` and `param_server` have become one
network at the old end. Such a run is marked, and is never taken for one that had its length from
the beginning.
"""

from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.files import write_json
from sixfold.core.life_cycle import RECORD
from sixfold.core.run_directory import RunDirectory, read_json, read_whole_json
from sixfold.training.checkpoint import list_checkpoints
from sixfold.training.config import TrainConfig, TrainingConfig
from sixfold.training.step.schedule import budget, parse_schedule
from sixfold.training.step.schedule_kinds import KINDS

LENGTH = ("training.epochs", "training.steps", "selection.max_time")
"""Settings that may differ where a training is resumed."""

MARK = "lengthened_at"
"""In the record of inputs and in the result: steps at which the length was another one."""

_JOINED_AT_THE_END = ("local_sgd", "hogwild", "param_server")


def lengthened(
    config: TrainConfig, images: int, directory: RunDirectory, on_event: OnEvent
) -> list[int]:
    """The steps at which a run that is resumed got another length, if its result depends on it.

    A `UserError` if the run has gone further than it is asked to.
    """
    marks: list[int] = (read_whole_json(directory.file(RECORD)) or {}).get(MARK, [])
    checkpoints = list_checkpoints(directory.file("checkpoints"))
    known = (directory.config() or {}).get("training")
    if not checkpoints or known is None:
        return marks
    done = int(checkpoints[-1].stem.removeprefix("step-"))
    total = budget(config.training, images).total_steps
    if done > total:
        asked = config.training
        flag = f"--epochs {asked.epochs:g}" if asked.steps is None else f"--steps {asked.steps}"
        raise UserError(
            f"{flag}: the run in {directory.path} has made {done} steps, more than these {total}: "
            "choose another --out for a shorter one"
        )
    before = budget(TrainingConfig(**known), images).total_steps
    if before == total or not depends_on_length(config):
        return marks
    on_event(
        {
            "kind": "note",
            "text": f"warning: trained on from step {done} of {before} to {total}: with "
            f"{_reason(config)} this is not what a run of this length from the beginning gives",
        }
    )
    return [*marks, done]


def depends_on_length(config: TrainConfig) -> bool:
    """Whether the first steps of a longer training are others than a shorter one's."""
    by_length = KINDS[parse_schedule(config.optimizer).kind].by_length
    return (
        by_length
        or bool(config.selection.early_stopping or config.selection.stop_at)
        or (config.strategy.strategy in _JOINED_AT_THE_END)
    )


def mark(directory: RunDirectory, steps: list[int]) -> None:
    """Keep in the directory at which steps the run got another length."""
    if steps:
        record = read_json(directory.file(RECORD)) or {}
        write_json(directory.file(RECORD), {**record, MARK: steps})


def refuse_lengthened(config: TrainConfig, directory: RunDirectory) -> None:
    """A `UserError` if a run was marked as lengthened, and is not asked for with `--resume`."""
    marks = (read_whole_json(directory.file(RECORD)) or {}).get(MARK)
    if marks and not config.run.resume:
        raise UserError(
            f"{directory.path} holds a run that was trained on from step {marks[-1]}, which with "
            f"{_reason(config)} is not what these settings give from the beginning: see it with "
            "--resume, choose another --out, or replace it with --overwrite"
        )


def _reason(config: TrainConfig) -> str:
    kind = parse_schedule(config.optimizer).kind
    if KINDS[kind].by_length:
        return f"--schedule {kind}"
    if config.selection.early_stopping:
        return f"--early-stopping {config.selection.early_stopping}"
    if config.selection.stop_at:
        return f"--stop-at {config.selection.stop_at}"
    return f"--strategy {config.strategy.strategy}"


def irrelevant_placement(config: TrainConfig) -> tuple[str, ...]:
    """Settings of where a training runs on which its result does not depend."""
    strategy = config.strategy
    same_bits = strategy.deterministic and strategy.grid != "auto"
    if same_bits and strategy.strategy in ("sync", "auto"):
        return ("engine", "strategy.audit")
    # Elsewhere the number of workers counts; where none is given it depends on the engine.
    counted = config.engine.workers is not None and strategy.strategy in (
        "model_parallel",
        "local_sgd",
    )
    if same_bits and counted:
        return (
            "engine.engine",
            "engine.master",
            "engine.spark_conf",
            "engine.max_restarts",
            "engine.tls",
        )
    return ("engine.max_restarts", "engine.tls")
