"""A machine's limits: plausible, kept in a file, and refused where the file is not one."""

import json
from pathlib import Path

import pytest

from sixfold.core.errors import UserError
from sixfold.perf.profile.limits import (
    Cache,
    CopyRate,
    Machine,
    ProductRate,
    load_machine,
    save_machine,
)
from sixfold.perf.profile.machine import (
    PRODUCT_SIZE,
    SMALLEST_PRODUCT,
    _product_size,
    measure_machine,
    read_caches,
)

MACHINE = Machine(
    processor="of paper",
    cores=4,
    memory_bytes=1 << 30,
    caches=(Cache(level=1, kind="Data", size_bytes=32768, shared_by=1),),
    products=(ProductRate(precision="float32", one_core_flops=100e9, all_cores_flops=320e9),),
    copies=(
        CopyRate(array_bytes=1000, one_core_bytes=100e9, all_cores_bytes=400e9),
        CopyRate(array_bytes=10**6, one_core_bytes=20e9, all_cores_bytes=40e9),
    ),
    torch="2",
    measured_at=1.0,
)


def test_this_machine_has_limits() -> None:
    machine = measure_machine(window_s=0.01, precisions=("float32",))
    (rate,) = machine.products
    assert 1e8 < rate.one_core_flops < 1e13
    assert rate.all_cores_flops > 0.5 * rate.one_core_flops
    assert all(1e8 < copy.one_core_bytes < 1e13 for copy in machine.copies)
    assert machine.cores >= 1
    assert machine.processor


def test_where_products_are_slow_smaller_matrices_are_multiplied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in bfloat16 on a processor without instructions for it: seconds for a large one."""
    monkeypatch.setattr("sixfold.perf.profile.machine.LONGEST_PRODUCT_S", 0.0)
    assert _product_size("float32") == SMALLEST_PRODUCT
    monkeypatch.setattr("sixfold.perf.profile.machine.LONGEST_PRODUCT_S", 1e9)
    assert _product_size("bfloat16") == PRODUCT_SIZE


def test_it_is_kept_in_a_file(tmp_path: Path) -> None:
    save_machine(MACHINE, tmp_path / "machine.json")
    assert load_machine(tmp_path / "machine.json") == MACHINE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"cores": "many"}, "no file of a machine's limits"),
        ({"copies": []}, "above 0"),
        ({"products": [{"precision": "float32"}]}, "no file of a machine's limits"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "machine.json"
    save_machine(MACHINE, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load_machine(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="no file of a machine's limits"):
        load_machine(path)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        load_machine(path)


def test_cores_share_what_the_machine_has() -> None:
    assert MACHINE.peak_flops(1) == 100e9
    assert MACHINE.peak_flops(4) == pytest.approx(80e9)
    assert MACHINE.peak_flops(8) == pytest.approx(40e9)
    assert 80e9 < MACHINE.peak_flops(2) < 100e9
    assert MACHINE.bandwidth() == 20e9
    assert MACHINE.bandwidth(4) == pytest.approx(10e9)
    assert MACHINE.bandwidth(1, 500) == 100e9


def test_caches_as_the_kernel_tells_them(tmp_path: Path) -> None:
    for number, (level, kind, size, shared) in enumerate(
        [("1", "Data", "48K", "0"), ("3", "Unified", "32M", "0-7,16-23"), ("x", "?", "?", "")]
    ):
        index = tmp_path / f"index{number}"
        index.mkdir()
        for name, text in zip(
            ("level", "type", "size", "shared_cpu_list"), (level, kind, size, shared), strict=True
        ):
            (index / name).write_text(text + "\n")
    assert read_caches(tmp_path) == (
        Cache(level=1, kind="Data", size_bytes=49152, shared_by=1),
        Cache(level=3, kind="Unified", size_bytes=32 << 20, shared_by=16),
    )
    assert read_caches(tmp_path / "absent") == ()
