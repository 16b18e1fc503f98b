"""What a strategy is: that part of a training which decides what ranks do with steps.

`sixfold.training.worker` owns the loop, the log, the checkpoints' times and the evaluations; a
strategy owns the network and its weights. It knows a `Communicator`, never the engine.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sixfold.core.run_directory import RankFiles
from sixfold.data import Part
from sixfold.training.evaluate import Evaluation
from sixfold.training.model_card import ModelCard
from sixfold.training.progress import Progress
from sixfold.training.step.schedule import TrainingLength
from sixfold.training.step.step import Shard, StepTotals


class Network(Protocol):
    """The network in training, as one rank holds it: whole, or a part of it."""

    # Whether every rank must take part in `save`, since none holds everything. If not, rank 0 saves
    # alone.
    together: bool

    def evaluate(self, part: Part) -> Evaluation | None:
        """Classify a part with all ranks: the evaluation on rank 0, None on the others."""
        ...

    def save(self, folder: Path, progress: Progress, *, keep: int) -> None:
        """Write a checkpoint and remove all but the last `keep` and the best.

        A `RunError` if it cannot be written; older checkpoints stay.
        """
        ...

    def restore(self, path: Path) -> Progress:
        """Take up a checkpoint, on every rank; a `UserError` if damaged or of other settings."""
        ...

    def publish(self, files: RankFiles, card: ModelCard) -> dict[str, Any]:
        """Write ``model.safetensors``; called on every rank.

        On rank 0 `weights_sha256` and the number of `parameters` are returned.
        """
        ...


@runtime_checkable
class MovableNetwork(Network, Protocol):
    """A network whose state one rank can hand to others."""

    def hand_over(self, source: int, lacking: Sequence[int]) -> bool:
        """Bring all ranks to the state of the rank `source`; called on every rank of a view.

        Args:
            source: it holds the newest state.
            lacking: ranks that have an older one, or none.

        Returns:
            Whether all have it now; if not, a part of it is lost and a checkpoint has to be loaded.

        Raises:
            PeerLostError: if a rank is gone; those that lack it may have a part of it.
        """
        ...


class Strategy(Protocol):
    """What one rank does with steps."""

    budget: TrainingLength  # length of the run in steps, as this strategy counts them
    update_s: float  # seconds that the last update of the weights took

    @property
    def network(self) -> Network:
        """What is trained."""
        ...

    def shards(self, first: int) -> Iterator[Shard]:
        """The shards that this rank will compute from step `first` on, in order."""
        ...

    def train_step(self, number: int, shards: Iterator[Shard], lr: float) -> StepTotals:
        """Make the step `number`, from 0; its loss, accuracy and samples on this rank.

        `shards` yields this rank's shards; no more are taken than belong to the step. A
        `NonFiniteLossError` if the loss is infinite or NaN (the weights are left as they were), a
        `PeerLostError` if a rank is gone.
        """
        ...

    def is_sync_point(self, done: int) -> bool:
        """Whether, after so many steps, the ranks hold weights to be evaluated and saved.

        Every rank must give the same answer, and after the last step it must be yes.
        """
        ...

    def canary(self) -> str:
        """A hash of what this rank computes for fixed images, before its first step.

        Ranks that compute alike have the same (`sixfold.training.step.canary`). What stands behind
        a space names what was computed: only canaries of the same are compared.
        """
        ...

    def figures(self) -> dict[str, Any]:
        """What this strategy adds to ``result.json``; read on rank 0 when all steps are done."""
        ...
