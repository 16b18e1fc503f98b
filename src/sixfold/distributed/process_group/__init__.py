"""A rank's view of its gang: see `sixfold.distributed.process_group.communicator`."""

from sixfold.distributed.process_group.communicator import (
    Alone,
    Buffer,
    Link,
    PlainData,
    Traffic,
    World,
    alone,
)

__all__ = ["Alone", "Buffer", "Link", "PlainData", "Traffic", "World", "alone"]
