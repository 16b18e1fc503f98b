"""A rank's view of its gang: see `sixfold.world.world`."""

from sixfold.world.world import Alone, Buffer, Link, PlainData, Traffic, World, alone

__all__ = ["Alone", "Buffer", "Link", "PlainData", "Traffic", "World", "alone"]
