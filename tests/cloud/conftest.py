"""A STAC API and an S3 server that publish painted scenes."""

from collections.abc import Iterator

import pytest
from servers.cloud import Cloud, publish
from servers.pgstac import StacServer, serve_pgstac


@pytest.fixture(scope="session")
def cloud(s3, tmp_path_factory) -> Cloud:
    """Painted scenes in the buckets of an agency."""
    return publish(tmp_path_factory.mktemp("painted"), s3)


@pytest.fixture(scope="session")
def api(cloud) -> Iterator[StacServer]:
    """A STAC API that has their items."""
    with serve_pgstac() as server:
        server.load(cloud.collections, cloud.items)
        yield server
