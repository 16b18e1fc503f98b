"""What is shipped: every file is in the distribution, and an empty environment can run it."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

import sixfold

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sixfold"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

CHECK_ONNX = """
import numpy, onnxruntime, torch, sixfold
images = torch.rand(3, 1, 8, 8)
network = sixfold.load("small/model.sixz")
session = onnxruntime.InferenceSession("small.onnx", providers=["CPUExecutionProvider"])
(found,) = session.run(["scores"], {"images": ((images - network.mean) / network.std).numpy()})
numpy.testing.assert_allclose(found, network(images).detach().numpy(), atol=1e-4)
"""


def files_that_are_not_python() -> set[str]:
    found = [path for path in SOURCE.rglob("*") if path.is_file()]
    ignored = (".py", ".pyc", ".so")
    return {str(p.relative_to(SOURCE.parent)) for p in found if p.suffix not in ignored}


def test_every_template_and_c_source_is_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["sixfold"]
    packaged = {str(p.relative_to(SOURCE.parent)) for word in patterns for p in SOURCE.glob(word)}
    assert files_that_are_not_python() == packaged


def test_setup_names_c_sources_that_exist() -> None:
    named = re.findall(r'"(src/[^"]+)"', (ROOT / "setup.py").read_text())
    assert named
    assert all((ROOT / name).is_file() for name in named)


def test_every_dependency_is_pinned() -> None:
    def canonical(requirement: str) -> str:
        name = re.split(r"[<>=\[; ]", requirement)[0]
        return re.sub(r"[-_.]+", "-", name).lower()

    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().split()}
    assert {canonical(word) for group in groups for word in group} - pinned == set()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that was built from it."""
    pytest.importorskip("build", reason="needs the extra dev")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, ROOT], check=True, timeout=900)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.mark.full
@pytest.mark.timeout(900)
def test_distributions_hold_every_file(distributions: tuple[Path, Path]) -> None:
    sdist, wheel = distributions
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in files_that_are_not_python()} <= names
    with zipfile.ZipFile(wheel) as archive:
        assert files_that_are_not_python() <= set(archive.namelist())


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_an_empty_environment_runs_it(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(program: str, *words: str) -> str:
        command = [str(home / "bin" / program), *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    constraints = str(ROOT / "constraints.txt")
    run("pip", "install", "--quiet", "--constraint", constraints, f"{distributions[1]}[onnx]")
    assert run("sixfold", "--version") == f"sixfold {sixfold.__version__}\n"

    job = ("--data", "digits", "--model", "lenet300", "--workers", "2")
    run("sixfold", "train", *job, "--epochs", "3", "--lr", "0.1", "--out", "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_accuracy"] > 0.5
    assert (tmp_path / "run" / "report.html").is_file()

    run("sixfold", "plan", *job, "--out", "plan")
    assert (tmp_path / "plan" / "plan.html").is_file()

    short = ("--rounds", "1", "--prune-epochs", "1", "--share-epochs", "1")
    run("sixfold", "compress", "run", *short, "--out", "small", "--onnx", "small.onnx")
    run("python", "-c", CHECK_ONNX)

    run("sixfold", "predict", "small/model.sixz", "--data", "digits", "--out", "scores.parquet")
    run("sixfold", "evaluate", "run", "--noise", "0.1", "--max-images", "20")
    for folder in ("run", "small"):
        run("sixfold", "report", folder)
        assert (tmp_path / folder / "report.html").is_file()
