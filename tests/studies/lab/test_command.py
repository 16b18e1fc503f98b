"""The commands end to end at small sizes, on a cluster of two executors."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sixfold.cli import main

pytestmark = [pytest.mark.spark, pytest.mark.full]

SMALL = {
    "loopnest": ["--images", "8", "--size", "9,7", "--repeats", "1", "--literal-jobs", "2"],
    "matmul": ["--products", "100x7x5,32,64", "--repeats", "1"],
    "activations": ["--images", "40", "--repeats", "1", "--ways", "same,driver,file"],
    "job-per-step": ["--data", "synthetic:60x3x8x8", "--batches", "20", "--steps", "5"],
}


@pytest.mark.parametrize("study", SMALL)
def test_a_study_leaves_its_result_and_its_page(study: str, tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        pytest.skip("Spark needs a Java runtime")
    master = "local-cluster[2,1,1024]" if study == "loopnest" else "local[2]"
    words = ["lab", study, *SMALL[study], "--master", master, "--out", str(tmp_path)]
    assert main(words) == 0
    result = json.loads((tmp_path / f"{study}.json").read_text())
    assert result["right"] is True
    assert result["slots"] == 2
    assert result["verdict"]
    assert "all results right" in (tmp_path / f"{study}.html").read_text()
