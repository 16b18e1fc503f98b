"""What starting costs: nothing heavy is imported before it is needed."""

import json
import resource
import subprocess
import sys

import pytest

from sixfold.cli import COMMANDS


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


HEAVY = ["torch", "pyspark", "numpy", "pyarrow", "sklearn", "scipy", "PIL", "plotly"]


@pytest.mark.parametrize(
    "action",
    [
        "import sixfold",
        "import sixfold; sixfold.configure(model='slide')",
        "from sixfold.cli import main; main(['--help'])",
        "from sixfold.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported(action: str) -> None:
    out = run(f"{action}\nimport sys, json\nprint(); print(json.dumps(sorted(sys.modules)))")
    loaded = set(json.loads(out.splitlines()[-1]))
    # `configure` looks whether the data can be, and sources know arrays.
    assert not loaded & set(HEAVY) - ({"numpy"} if "configure" in action else set())


@pytest.mark.parametrize("wrong", ["--nothing", "--batch-size=x"])
def test_wrong_words_are_answered_before_torch_is_imported(wrong: str) -> None:
    modes = {
        "sweep": ["time", "quality", "delay", "roofline"],
        "lca": ["learn", "encode"],
        "lab": ["loopnest", "matmul", "activations", "job-per-step"],
    }
    calls = [
        [command, *([mode] if mode else []), wrong]
        for command in COMMANDS
        for mode in modes.get(command, [""])
    ]
    out = run(
        "import json, sys\nfrom sixfold.cli import main\n"
        f"print(json.dumps([main(words) for words in {calls!r}]))\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    codes, loaded = map(json.loads, out.splitlines())
    assert codes == [2] * len(calls)
    assert not set(loaded) & {"torch", "pyspark", "scipy", "pandas"}


def test_help_takes_next_to_no_processor_time() -> None:
    def measure() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "sixfold", "--help"], capture_output=True, timeout=60, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Not by the clock: the machine may be busy with something else.
    assert min(measure() for _ in range(3)) < 0.5


def test_public_names_exist_and_others_are_refused() -> None:
    import sixfold

    for name in sixfold.__all__:
        assert getattr(sixfold, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sixfold.nothing
