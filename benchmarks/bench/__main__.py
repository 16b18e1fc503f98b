"""Measurements of Sixfold, next to peers."""

import sys

from sixfold.cli import Command, main

sys.exit(
    main(
        ["bench", *sys.argv[1:]],
        {"bench": Command("benchmarks.bench", "measure, next to peers")},
    )
)
