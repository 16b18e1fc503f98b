"""A network as a graph of operations: the tracer, and the table of what is known of each."""

from sixfold.models.graph import table as table  # its rows are there for whoever looks one up
