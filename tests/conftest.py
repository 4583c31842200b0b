"""Fixtures every test may use."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from servers.s3 import S3, serve_s3

hypothesis.settings.register_profile("untimed", deadline=None)  # machines have other work too
hypothesis.settings.load_profile("untimed")


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
