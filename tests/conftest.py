"""What all tests share: an isolated cache and tracker, one Ray for the session, real photos where they are."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    import faulty_s3

TESTS = Path(__file__).parent

os.environ.update(
    # Ray's workers unpickle classes of the tests by importing their modules.
    PYTHONPATH=os.pathsep.join([str(TESTS), str(TESTS / "launch")]),
    WANDB_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AUTH_MODE="disabled",
    RAY_DEDUP_LOGS="0",
    OMP_NUM_THREADS="1",
    # Of the tests' own S3 server; Ray's workers inherit them.
    AWS_ACCESS_KEY_ID="of-a-test",
    AWS_SECRET_ACCESS_KEY="of-a-test",
    AWS_EC2_METADATA_DISABLED="true",
)

os.environ.pop("NRH_STORAGE", None)  # no test sends anything anywhere

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser; the test is skipped where there is none."""
    from browsers import BROWSER, FLAGS

    if BROWSER is None:
        pytest.skip("no chromium or google-chrome here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """HOST:PORT of an S3 server on loopback, started once."""
    import faulty_s3

    with faulty_s3.server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_server: str) -> Iterator["faulty_s3.Proxy"]:
    """The server behind a proxy that can go wrong, with an empty bucket ``bucket``."""
    import faulty_s3

    proxy = faulty_s3.Proxy(s3_server)
    proxy.bucket = f"bucket-{uuid4().hex}"
    faulty_s3.make_bucket(s3_server, proxy.bucket)
    proxy.address = f"s3://{proxy.bucket}/kept?endpoint_override={proxy.endpoint}&scheme=http"
    yield proxy
    proxy.close()
