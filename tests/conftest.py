"""What all tests share: an isolated cache and tracker, one Ray for the session, real photos where they are."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

os.environ.update(
    # Ray's workers unpickle classes of the tests by importing their modules.
    PYTHONPATH=os.pathsep.join([str(TESTS), str(TESTS / "launch")]),
    WANDB_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AUTH_MODE="disabled",
    RAY_DEDUP_LOGS="0",
    OMP_NUM_THREADS="1",
)

sys.path.insert(0, str(TESTS))


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Packs made in tests go to a folder of the tests."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["NRH_CACHE"] = str(folder)
    yield folder


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """The folder of real photos; the test is skipped where there is none."""
    folder = os.environ.get("NRH_TEST_DATA")
    if not folder:
        pytest.skip("NRH_TEST_DATA names no folder of real photos")
    return Path(folder)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray with two CPUs, started once."""
    import ray

    from nrh_dist.launch import session

    os.environ.pop("RAY_ADDRESS", None)
    session.connect(print)
    yield
    ray.shutdown()
