"""What a training begins with, held against the network before an older run is removed."""

from pathlib import Path

from sixfold.core.errors import UserError
from sixfold.core.events import OnEvent
from sixfold.core.run_directory import RunDirectory
from sixfold.data import DataSet
from sixfold.training.config import TrainConfig
from sixfold.training.network import initial_network
from sixfold.training.sparsity.initialization import begin
from sixfold.training.step.flat import FlatState
from sixfold.training.step.optimizer import whole_optimizer


def check_initialization(
    config: TrainConfig, opened: DataSet, directory: RunDirectory, on_event: OnEvent
) -> None:
    """Try out the files that a training begins with, on a network that is then thrown away.

    An older run in `directory` is removed next, unless it is resumed. A `UserError` if a file
    cannot be read, does not fit the network, or would be removed.
    """
    initialization = config.initialization
    files = {name: getattr(initialization, name) for name in ("weights", "mask", "shared")}
    given = {name: Path(path) for name, path in files.items() if path is not None}
    if not given:
        return
    home = directory.path.resolve()
    inside = [name for name, path in given.items() if path.resolve().is_relative_to(home)]
    if inside and not config.run.resume:
        raise UserError(
            [
                f"--{name} {given[name]}: lies in the run directory {directory.path}, which is "
                "emptied first: choose another --out"
                for name in inside
            ]
        )
    state = FlatState(
        initial_network(config, opened, lambda text: on_event({"kind": "note", "text": text}))
    )
    begin(initialization, state, whole_optimizer(config.optimizer, state))
