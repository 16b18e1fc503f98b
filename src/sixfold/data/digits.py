"""The digits that come with scikit-learn: 1,797 handwritten numerals, 8x8, in 17 grey levels.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (its test
set). Read from scikit-learn's data file: importing scikit-learn itself takes a second.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sixfold.core.errors import UserError
from sixfold.data.dataset import ArrayStore
from sixfold.data.images import resize_array
from sixfold.data.splits import cut

CLASSES = tuple("0123456789")


def load(resize: int | None = None) -> tuple[ArrayStore, ArrayStore]:
    """Training and test digits, 80 to 20, stratified.

    The levels 0 to 16 become 0 to 255, rounded: all 17 stay apart.
    """
    table = _table()
    levels = table[:, :-1].reshape(-1, 1, 8, 8)
    images = ((levels * 255 + 8) // 16).astype(np.uint8)
    if resize is not None:
        images = np.stack([resize_array(image, resize) for image in images])
    labels = table[:, -1]
    names = [f"digits[{index}]" for index in range(len(labels))]
    test = cut(labels, 0.2, purpose="test")
    train_store, test_store = (
        ArrayStore(images[chosen], labels[chosen], [names[index] for index in chosen])
        for chosen in (np.flatnonzero(~test), np.flatnonzero(test))
    )
    return train_store, test_store


def _table() -> NDArray[np.int64]:
    """64 levels and the label of each digit, (1797, 65)."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise UserError("the data set digits needs scikit-learn: pip install scikit-learn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.exists():
        with gzip.open(file, "rt") as lines:
            return np.loadtxt(lines, delimiter=",").astype(np.int64)
    # A version of scikit-learn that keeps its file elsewhere.
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.int64)
