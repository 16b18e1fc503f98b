"""Pictures without labels, for prediction: every file in a folder or archive, at any depth."""

from __future__ import annotations

import numpy as np

from sixfold.core.errors import UserError
from sixfold.data.dataset import UNLABELLED
from sixfold.data.file_tree import Tree
from sixfold.data.records import FileRecords, Listing


def read(tree: Tree, name: str) -> Listing:
    """List the pictures of a folder, by name; hidden files are none.

    They all are the test part: there is nothing to learn from.
    """
    files = sorted(tree.files)
    if not files:
        raise UserError(f"{tree.path}: holds no files: expected pictures")
    everything = FileRecords(
        names=files,
        labels=np.zeros(len(files), np.int64),
        extents=[tree.files[file] for file in files],
    )
    nothing = everything.take(np.empty(0, np.int64))
    return Listing(
        name=name,
        classes=(UNLABELLED,),
        parts={"train": nothing, "test": everything},
        split="all pictures",
        left_out=tree.left_out,
    )
