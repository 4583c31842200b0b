"""One API server with the real operator for the tests that need them."""

import pytest

from deploy.chart import render
from deploy.cluster import run_kubernetes


@pytest.fixture(scope="session")
def rules():
    """Rights of the chart's starter."""
    (role,) = (resource for resource in render(["kind"]) if resource["kind"] == "Role")
    return role["rules"]


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory, rules):
    """The API server and the operator, to which the starter shows its token."""
    with run_kubernetes(tmp_path_factory.mktemp("kubernetes"), rules) as running:
        yield running
