"""Fixtures every test may use."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import s3fs
from servers.azure_google import serve_azure, serve_google
from servers.s3 import S3, serve_s3

hypothesis.settings.register_profile("untimed", deadline=None)  # machines have other work too
hypothesis.settings.load_profile("untimed")


LONG = (
    *("faults/test_faults.py", "clusters/test_gateway.py", "test_engines.py", "test_network.py", "test_pipeline.py"),
    *("test_training.py", "clusters/test_clusters.py", "clusters/test_resilience.py", "clusters/test_kubernetes.py"),
    *("test_updating.py", "report/test_map.py", "test_planning.py", "test_trends.py", "cloud/test_cloud_run.py"),
    *("cloud/test_object_store.py", "test_recipes.py", "test_lease.py", "test_scores.py", "test_walls.py"),
)
"""Files that take longest, the longest first: begun last, one of them would leave other processes idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, as xdist hands out files in the order of collection (`--no-loadscope-reorder`)."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real data and parity numbers beside the checkout; not shipped with the project."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder of real data and parity numbers is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A real S3 server for the session, which the environment names from then on."""
    with serve_s3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Azurite for the session: a function that makes containers."""
    with serve_azure(tmp_path_factory.mktemp("azure")) as new_container:
        yield new_container


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A server of Google's kind for the session: a function that makes buckets."""
    with serve_google(tmp_path_factory.mktemp("google")) as new_bucket:
        yield new_bucket


@pytest.fixture
def eager() -> Iterator[None]:
    """Steps of a training without a compiled graph, whose making takes longer than all steps of a test."""
    import tensorflow as tf  # noqa: PLC0415 - takes seconds, and most tests do without

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def dead_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 endpoint that nobody listens at, in the environment; clients that know it do not outlive the test."""
    keys = {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1", "MAX_ATTEMPTS": "1"}
    for name, value in (keys | {"ENDPOINT_URL": "http://127.0.0.1:9"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
