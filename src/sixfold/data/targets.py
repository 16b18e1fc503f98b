"""What a network is to say of an image: its class, which of several labels, or numbers."""

CLASSES, BINARY, MULTI_LABEL, REGRESSION = "classes", "binary", "multi_label", "regression"

KINDS = {
    CLASSES: "one class of several",
    BINARY: "one class of two",
    MULTI_LABEL: "any number of labels",
    REGRESSION: "numbers",
}
"""Kinds of targets, in words. `binary` is `classes` of a network with a single output."""

AUTO = "auto"


def describe(kind: str) -> str:
    """A kind in words, for messages."""
    return f"{kind} targets ({KINDS[kind]} an image)"


def outputs_of(kind: str, names: int) -> int:
    """How many numbers a network gives for an image.

    Args:
        kind: of the targets.
        names: how many classes, labels or numbers have a name.
    """
    return 1 if kind == BINARY else names
