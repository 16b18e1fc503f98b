"""What a processor knows is read as Linux writes it."""

from pathlib import Path

from sixfold.core.processor import processor


def test_what_all_cores_know_counts(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags : sse2 avx2 fma\n\nprocessor : 1\nflags : sse2 avx2\n")
    assert processor(path) == frozenset({"sse2", "avx2"})
    path.write_text("processor : 0\nFeatures\t: asimd sve\nCPU part : 0x1\n")
    assert processor(path) == frozenset({"asimd", "sve"})
    assert processor(tmp_path / "absent") is None
