"""A network of which every rank of a model-parallel group holds a part, and none the whole."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sixfold.core.errors import UserError
from sixfold.core.files import explained
from sixfold.core.run_directory import RankFiles
from sixfold.core.tensor_file import read_header, read_metadata
from sixfold.data import BatchMaker, Part
from sixfold.distributed.process_group import Communicator
from sixfold.training.checkpoint import FORMAT, begin_new, counters, list_checkpoints, path_of
from sixfold.training.evaluate import Evaluation, evaluate
from sixfold.training.losses.loss import Plain
from sixfold.training.model_card import ModelCard
from sixfold.training.progress import Progress
from sixfold.training.step.averaging import averaged
from sixfold.training.step.flat import FlatState
from sixfold.training.step.update_rule import Optimizer
from sixfold.training.strategies.model_parallel.copies import PartCopies
from sixfold.training.strategies.model_parallel.network import DividedNetwork
from sixfold.training.strategies.model_parallel.sharded_file import (
    Piece,
    read_parts,
    sha256_of,
    write_parts,
)
from sixfold.training.strategies.replicated import RAW, raw_figures


class ShardedModel:
    """See `sixfold.training.strategies.strategy.Network`.

    Files have the form that whole networks have (`sixfold.training.checkpoint`,
    `sixfold.training.model_card`): every rank of the first group hands over its parts, a block at a
    time, and rank 0 writes.

    Args:
        replicas: the ranks with this rank's place in their groups, which share the evaluations.
        model: this rank's part.
        state: flat views of it.
        optimizer: the update rule, whose state is saved along.
        make_batch: makes this rank's part of images.
        loss: what evaluations tell.
        copies: who else holds which part.
    """

    together = True

    def __init__(
        self,
        replicas: Communicator,
        model: DividedNetwork,
        state: FlatState,
        optimizer: Optimizer,
        make_batch: BatchMaker,
        loss: Plain,
        copies: PartCopies,
    ) -> None:
        self._replicas, self._group, self._model = replicas, model.group, model
        self._state, self._optimizer, self._make_batch = state, optimizer, make_batch
        self._loss, self._copies = loss, copies

    @property
    def _is_root(self) -> bool:
        return self._replicas.rank == 0 and self._group.rank == 0

    def evaluate(self, part: Part) -> Evaluation | None:
        """Classify a part, its chunks shared out over the groups."""
        with averaged(self._state, self._optimizer):
            found = evaluate(self._replicas, self._model, part, self._make_batch, self._loss)
        return found if self._is_root else None

    def save(self, folder: Path, progress: Progress, *, keep: int) -> None:
        """Write a checkpoint, all ranks of the first group together."""
        if self._replicas.rank != 0:
            return
        path = path_of(folder, progress.step)
        if self._is_root:
            with explained(path):
                folder.mkdir(parents=True, exist_ok=True)
        write_parts(path, self._group, self._pieces(), counters(progress, self._optimizer))
        if self._is_root:
            for old in list_checkpoints(folder)[:-keep]:
                if old != path_of(folder, progress.best_step):
                    old.unlink(missing_ok=True)

    def restore(self, path: Path) -> Progress:
        """Read this rank's parts of a checkpoint, whatever division it was written in."""
        own = self._copies.own
        own.is_whole = False
        try:
            metadata = read_metadata(path)
            if metadata.get("format") != str(FORMAT):
                raise ValueError(
                    f"checkpoint format {metadata.get('format')}, this version reads {FORMAT}"
                )
            rank = self._group.rank
            read_parts(path, rank, self._model_pieces("model."))
            with path.open("rb") as file:
                saved, _ = read_header(file)
            new = begin_new(saved, self._state, self._optimizer)
            read_parts(path, rank, self._slot_pieces(without=new))
            self._optimizer.updates = int(metadata["updates"])
            own.is_whole = True
            return Progress(**json.loads(metadata["progress"]))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged or belongs to another network ({error}): remove it to go on "
                "from an older checkpoint"
            ) from error

    def hand_over(self, source: int, lacking: Sequence[int]) -> bool:  # noqa: ARG002 - protocol
        """From whoever has a copy of a part."""
        return self._copies.hand_over(source)

    def publish(self, files: RankFiles, card: ModelCard) -> dict[str, Any]:
        """Write the weights, all ranks of the first group together."""
        if self._replicas.rank != 0:
            return {}
        files.fence()
        path = files.path / "model.safetensors"
        metadata = {"sixfold": json.dumps(card.plain())}
        with averaged(self._state, self._optimizer) as is_average:
            write_parts(path, self._group, self._model_pieces(), metadata)
        if is_average:
            write_parts(files.path / RAW, self._group, self._model_pieces(), metadata)
        if not self._is_root:
            return {}
        figures = raw_figures(sha256_of(files.path / RAW)) if is_average else {}
        parts, names = self._model.parts, dict(self._model.named_parameters())
        return figures | {
            "weights_sha256": sha256_of(path),
            "parameters": sum(_volume(parts[name].shape) for name in names),
            "trainable_parameters": sum(
                _volume(parts[name].shape) for name, own in names.items() if own.requires_grad
            ),
        }

    def _model_pieces(self, prefix: str = "") -> list[Piece]:
        return [
            Piece(prefix + name, self._model.parts[name], value)
            for name, value in self._model.state_dict().items()
        ]

    def _pieces(self) -> list[Piece]:
        """Parts of the network and of the optimizer's state, under the names of a checkpoint."""
        return [*self._model_pieces("model."), *self._slot_pieces()]

    def _slot_pieces(self, without: Collection[str] = ()) -> list[Piece]:
        return [
            Piece(f"optimizer.{slot}.{name}", self._model.parts[name], view)
            for slot, vector in self._optimizer.slots.items()
            for name, view in self._state.named_views(vector)
            if name not in without
        ]


def _volume(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
