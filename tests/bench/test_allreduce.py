"""The benchmark of sums over ranks: what is refused, and a real tiny run."""

import json
from pathlib import Path

import pytest
from benchmarks.bench import BenchConfig, run
from benchmarks.bench.options import PartsBenchConfig, TrainBenchConfig, parse_sizes

from sixfold.core.errors import UserError


def test_wrong_settings_are_all_told_at_once() -> None:
    config = BenchConfig(
        bench=TrainBenchConfig(workers=1, repeats=0, model="resnet20"),
        parts=PartsBenchConfig(sizes="4KB,many"),
    )
    with pytest.raises(UserError) as refused:
        run("allreduce", config, show=print)
    text = "\n".join(refused.value.problems)
    assert "--model: bench allreduce does not take it" in text
    assert "--workers 1" in text
    assert "--repeats 0" in text
    assert "many is no size" in text


def test_options_of_other_benchmarks_are_refused() -> None:
    with pytest.raises(UserError, match="--sizes: bench train does not take it"):
        run("train", BenchConfig(parts=PartsBenchConfig(sizes="4KB")), show=print)


@pytest.mark.parametrize("text", ["", "0", "4 GB", "2GiB", "-4KB"])
def test_sizes_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_sizes(text)


@pytest.mark.full
def test_a_tiny_run_beside_gloo(tmp_path: Path) -> None:
    config = BenchConfig(
        bench=TrainBenchConfig(repeats=1, out=str(tmp_path)), parts=PartsBenchConfig(sizes="400B")
    )
    run("allreduce", config, show=print)
    (table,) = json.loads((tmp_path / "allreduce.json").read_text())["tables"]
    (row,) = table["rows"]
    assert row["case"] == "0.4 KB"
    assert row["measured"]["sixfold"]["median"] > 0
    assert row["measured"]["gloo"]["median"] > 0
    assert (tmp_path / "allreduce.html").exists()
