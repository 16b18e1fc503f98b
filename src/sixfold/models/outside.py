"""What a forward asks of the world outside: the clock, the system's entropy, files.

Nobody else can be told the same answer, and a forward that is read once would keep the first one
for ever. Seen are calls of Python's own functions that the user's code makes, or has a library
make for it.
"""

import ast
import gc
import itertools
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sixfold.models.observe import is_own

_SYSTEM = {
    *("urandom", "getrandom", "getpid", "getppid", "stat", "lstat", "listdir", "scandir", "times"),
    *("getcwd", "uname", "cpu_count", "process_cpu_count", "sched_getaffinity", "getloadavg"),
}

_OUTSIDE = {
    "time": {
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
        *("process_time", "process_time_ns", "thread_time", "thread_time_ns", "localtime"),
        *("gmtime", "ctime", "strftime", "clock_gettime", "clock_gettime_ns"),
    },
    "posix": _SYSTEM,
    "nt": _SYSTEM,
    "io": {"open"},
    "_io": {"open"},
    "datetime": {"now", "utcnow", "today"},
    "_socket": {"gethostname"},
    "_thread": {"get_ident", "get_native_id"},
    "resource": {"getrusage"},
    "_uuid": {"generate_time_safe"},
    "torch": {"get_num_threads", "get_num_interop_threads"},
}
"""Functions by the module or class that has them."""

_CALLED = {"posix": "os.", "nt": "os.", "io": "", "_io": ""}
"""How users write the modules that have another name inside."""

_UNASKED = {"torch", "importlib", "sixfold", "logging", "warnings", "linecache"}
"""Libraries that ask for themselves: when they load, write a log, or warn."""


@contextmanager
def watched() -> Iterator[list[str]]:
    """While open, calls to the outside are entered in what is given, with the place of each."""
    found: list[str] = []

    collecting = False

    # Whatever the collector has others do (timing it, say) is not the forward's doing.
    def collects(_: str, __: object) -> None:
        nonlocal collecting
        collecting = True

    def has_collected(phase: str, _: object) -> None:
        nonlocal collecting
        collecting = phase == "start"

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or collecting:
            return
        home = getattr(called, "__module__", None) or getattr(
            getattr(called, "__self__", None), "__module__", ""
        )
        name = getattr(called, "__name__", "")
        if name == "seed" and home == "random" and frame.f_locals.get("a", frame) is None:
            home, name = "posix", "urandom"  # which its C code asks
        if name in _OUTSIDE.get(str(home), ()) and not _makes_seeded(frame):
            place = _own_place(frame)
            if place:
                found.append(f"{_CALLED.get(str(home), f'{home}.')}{name} ({place})")

    before = sys.getprofile()
    gc.callbacks.insert(0, collects)
    gc.callbacks.append(has_collected)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)
        gc.callbacks.remove(collects)
        gc.callbacks.remove(has_collected)


def _makes_seeded(frame: FrameType) -> bool:
    """Whether `np.random.RandomState(3)` asks for entropy, as it does before it takes its seed.

    NumPy's own code has no frames, so what is called is read where the call stands.
    """
    maker = frame.f_back
    if maker is None or frame.f_code.co_name != "getrandbits":
        return False
    called = _expression(maker)
    if not isinstance(called, ast.Call) or "RandomState" not in ast.unparse(called.func):
        return False
    given = [*called.args, *(keyword.value for keyword in called.keywords)]
    names = {**maker.f_globals, **maker.f_locals}
    return any(
        (names.get(one.id) if isinstance(one, ast.Name) else getattr(one, "value", one)) is not None
        for one in given
    )


def _expression(frame: FrameType) -> ast.expr | None:
    """The expression that a frame computes just now, if its source is there."""
    positions = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if positions is None or None in positions:
        return None
    first, last, start, end = (place or 0 for place in positions)
    lines = [
        linecache.getline(frame.f_code.co_filename, number).encode()
        for number in range(first, last + 1)
    ]
    if not all(lines):
        return None
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    try:
        return ast.parse(b"(" + b"".join(lines) + b")", mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _own_place(frame: FrameType | None) -> str | None:
    """Where the user's code made a call, itself or through a library; None if torch did."""
    while frame is not None:
        home = str(frame.f_globals.get("__name__"))
        if home.partition(".")[0] in _UNASKED:
            return None
        if is_own(home):
            return f"{Path(frame.f_code.co_filename).name} line {frame.f_lineno}"
        frame = frame.f_back
    return None
