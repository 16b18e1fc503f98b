"""What tests of all rooms share: small trainings, and the data that may lie beside the checkout."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported: tests run beside ranks of their own, and threads would fight for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell starts what runs in its background deaf to Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from sixfold.core.settings import build_tree
from sixfold.distributed.engines import Engine, open_engine
from sixfold.distributed.session import PRELOAD
from sixfold.training.config import TrainConfig

pytest_plugins = ["tests.spark_masters", "tests.s3_server"]

# How long an example takes says nothing about the code where cores are shared. `make test-full`
# takes the second profile.
for profile, examples in (("quick", 20), ("full", 100)):
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("quick")

SMALL: dict[str, Any] = {
    "data": "synthetic:200x3x8x8",
    "model": "slide",
    "lr": 0.01,
    "batch_size": 40,
    "steps": 6,
    "evaluate_every": 0.0,
    "engine": "inline",
    "workers": 1,
}


def small_config(**changes: Any) -> TrainConfig:
    """Settings of a training that takes a fraction of a second, with changes by field name.

    They may be wrong, unlike those of `sixfold.configure`: for tests of what is said then.
    """
    return build_tree(TrainConfig, SMALL | changes)


@pytest.fixture
def configure() -> Callable[..., TrainConfig]:
    """Makes settings of a small training."""
    return small_config


@pytest.fixture(scope="session")
def local_engine() -> Iterator[Engine]:
    """The engine of this machine; its server has imported already what ranks need."""
    with open_engine("local", preload=PRELOAD) as engine:
        yield engine


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; skips where there is none."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data sets in ../shared/data")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own for the whole test run."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIXFOLD_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def quick_disk() -> Iterator[None]:
    """No test cuts the power; on a busy disk the ten `fsync` of a run take longer than the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
