"""A rank's view of its process group: see `sixfold.distributed.process_group.communicator`."""

from sixfold.distributed.process_group.communicator import (
    Buffer,
    Communicator,
    PlainData,
    SingleProcess,
    Traffic,
    Transport,
    alone,
)

__all__ = ["Buffer", "Communicator", "PlainData", "SingleProcess", "Traffic", "Transport", "alone"]
