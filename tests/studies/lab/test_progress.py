from types import SimpleNamespace

import pytest

from sixfold.studies.lab import run


def test_progress_tells_how_many_there_are_and_how_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter([0.0, 60.0, 120.0])
    monkeypatch.setattr(
        "sixfold.studies.lab.run.time", SimpleNamespace(monotonic=lambda: next(now))
    )
    shown: list[str] = []
    parts = run.Progress(3, shown.append)
    for what in ("a", "b", "c"):
        parts.begin(what)
    assert shown == [
        "[1 of 3] a",
        "[2 of 3] b, about 2.0 min left",
        "[3 of 3] c, about 1.0 min left",
    ]
