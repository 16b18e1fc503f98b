import gc
import sys
import threading
from types import FrameType

import pytest

from sixfold.distributed.process_group import control


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_while_threads_are_looked_at(
    collects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Python 3.11 may stand still with all its threads (python/cpython#106883)."""
    frames, during = sys._current_frames, list[bool]()

    def look() -> dict[int, FrameType]:
        during.append(gc.isenabled())
        return frames()

    monkeypatch.setattr(sys, "_current_frames", look)
    try:
        if not collects:
            gc.disable()
        assert "test_control.py" in "".join(control._place(threading.get_ident()))
        control._stacks()
        assert gc.isenabled() == collects
    finally:
        gc.enable()
    assert during == [False, False]
