"""Every command, of networks with several outputs and of every loss: it works, or one line why not.

Which refuse what is written down here, so that neither can change unnoticed.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conformance.losses import write_table

from sixfold.cli import main

pytestmark = pytest.mark.full

KIND = ["--label-column", "kind"]
FORMS = ["--model", "tests.conformance.several_outputs:Forms", *KIND, "--model-args"]
HEAD = ["--aux-weight", "0.3"]
PLAIN = ["--model", "lenet300"]
CASES = {
    "tuple": [*FORMS, "form=tuple,then=no_head", *HEAD],
    "list": [*FORMS, "form=list", *HEAD],
    "mapping": [*FORMS, "form=mapping,then=without", *HEAD],
    "named tuple": [*FORMS, "form=namedtuple,then=alone", *HEAD],
    "main output second": [*FORMS, "form=help_first", *HEAD],
    "data class": [*FORMS, "form=dataclass", *HEAD],
    "model output": [*FORMS, "form=model_output,then=no_field", *HEAD],
    "own loss of all": [
        *(*FORMS, "form=model_output,then=no_field"),
        *("--loss", "tests.conformance.several_outputs:both"),
    ],
    "smoothed": [*PLAIN, *KIND, "--label-smoothing", "0.1", "--class-weights", "balanced"],
    "sample weights": [*PLAIN, *KIND, "--weight-column", "weight"],
    "binary": [*PLAIN, "--loss", "binary", "--label-column", "dark"],
    "multi_label": [*PLAIN, "--loss", "multi_label", "--label-column", "parts"],
    "mse": [*PLAIN, "--loss", "mse", "--label-column", "bright,top"],
    "l1": [*PLAIN, "--loss", "l1", "--label-column", "bright"],
    "huber": [*PLAIN, "--loss", "huber", "--label-column", "bright,top"],
    "own": [*PLAIN, "--loss", "tests.conformance.losses:own_sum", *KIND],
}
SEVERAL, NO_CLASSES = [*CASES][:8], ["multi_label", "mse", "l1", "huber"]
STEPS, LR, INLINE = ["--steps", "6"], ["--lr", "0.02"], ["--engine", "inline", "--workers", "1"]
QUICK = ["--rounds", "1", "--prune-epochs", "1", "--share-epochs", "1", "--sparsity", "0.5"]
Words = Callable[[str, list[str], str], list[str]]
OF_A_RUN: dict[str, Words] = {
    "predict": lambda run, _, out: ["predict", run, "--out", f"{out}.parquet", *INLINE],
    "views": lambda run, _, out: [
        *("predict", run, "--tta", "flip", "--out", f"{out}.parquet", *INLINE)
    ],
    "report": lambda run, *_: ["report", run],
    "evaluate": lambda run, _, out: [
        *("evaluate", run, "--noise", "0.1", "--max-images", "8", "--out", out, *INLINE)
    ],
    "onnx": lambda run, _, out: ["export", run, "--out", f"{out}.onnx"],
    "torchscript": lambda run, _, out: ["export", run, "--out", f"{out}.pt"],
    "exported": lambda run, _, out: ["export", run, "--out", f"{out}.pt2"],
    "compress": lambda run, _, out: ["compress", run, *QUICK, "--out", out, *INLINE],
    "sparse": lambda run, _, out: ["sparse", run, "--out", f"{out}.json"],
}
VARY = ["--vary", "lr=0.1,0.01"]
OF_SETTINGS: dict[str, Words] = {
    "tickets": lambda _, base, out: [
        *("tickets", *base, *STEPS, *LR, "--sparsities", "0.5", *INLINE, "--out", out)
    ],
    "sweep time": lambda _, base, out: [
        *("sweep", "time", *base, *STEPS, *VARY, "--repeats", "1", *INLINE, "--out", out)
    ],
    "sweep quality": lambda _, base, out: [
        *("sweep", "quality", *base, *STEPS, *VARY, *INLINE, "--out", out)
    ],
    "tune": lambda _, base, out: [
        *("tune", *base, *STEPS, "--search", "lr=0.1,0.01", "--trials", "2", "--validation", "0.2"),
        *(*INLINE, "--out", out),
    ],
    "lr-find": lambda _, base, out: ["lr-find", *base, "--steps", "5", *INLINE, "--out", out],
    "plan": lambda _, base, out: ["plan", *base, "--workers", "2", "--out", out],
    "profile": lambda _, base, out: ["profile", *base, "--repeats", "1", *INLINE, "--out", out],
    "local_sgd": lambda _, base, out: [
        *("train", *base, *STEPS, "--strategy", "local_sgd", "--engine", "inline"),
        *("--workers", "2", "--out", out),
    ],
    "model_parallel": lambda _, base, out: [
        *("train", *base, *STEPS, "--strategy", "model_parallel", "--engine", "inline"),
        *("--workers", "2", "--out", out),
    ],
}
COMMANDS = OF_A_RUN | OF_SETTINGS
REFUSED = {
    **dict.fromkeys(["evaluate", "compress", "tickets", "sweep quality"], NO_CLASSES),
    "model_parallel": SEVERAL,
}
"""What refuses which cases: accuracies are compared; a divided network has one output."""
WHOLE = ["named tuple", "own loss of all", *[*CASES][8:]]
"""Cases that every command is given; others differ from one of them in the outputs' form alone."""
SOME = {
    "plan": ["named tuple", "mse"],  # measures for long
    "profile": ["named tuple", "binary"],
    "onnx": ["named tuple", "own loss of all", "mse"],
    **dict.fromkeys(set(OF_SETTINGS) - {"plan", "profile", "model_parallel"}, WHOLE),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.mark.parametrize("case", CASES)
def test_every_command_works_or_says_in_a_line_why_not(
    case: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--data", data, "--batch-size", "12", *CASES[case]]
    run = str(tmp_path / "run")
    assert main(["train", *base, *STEPS, *LR, *INLINE, "--out", run]) == 0
    for name, words in COMMANDS.items():
        if case not in SOME.get(name, CASES):
            continue
        capsys.readouterr()
        code = main(words(run, base, str(tmp_path / name.replace(" ", "-"))))
        told = capsys.readouterr().err
        assert code == (2 if case in REFUSED.get(name, []) else 0), (name, told)
        if code:
            assert len(told.splitlines()) == 1, (name, told)
