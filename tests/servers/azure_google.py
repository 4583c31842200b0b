"""Servers of Azure's and Google's kind on loopback: Azurite and fake-gcs-server, which `azure_google.sh` fetches."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import fsspec
import httpx
import pytest

from servers.processes import Processes, free_ports, listens

FETCHED = Path(__file__).parents[2] / ".tools" / "azure_google"
ACCOUNT = "devstoreaccount1"  # and its key are Azurite's own, the same everywhere
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def serve_azure(folder: Path) -> Iterator[Callable[[], str]]:
    """Run Azurite until the block ends, named in the environment; lend what makes a container and gives its address."""
    _need("adlfs")
    (port,) = free_ports(1)
    words = ("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort", str(port))
    with Processes(folder) as processes, pytest.MonkeyPatch.context() as patch:
        processes.start("node", str(FETCHED / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"), *words)
        processes.wait_for(lambda: listens(port))
        address = f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};AccountName={ACCOUNT};AccountKey={KEY}"
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", address)

        def new_container() -> str:
            name = f"calfin-{secrets.token_hex(6)}"
            fsspec.filesystem("abfs").mkdir(name)
            return f"abfs://{name}"

        yield new_container


@contextmanager
def serve_google(folder: Path) -> Iterator[Callable[[], str]]:
    """Run fake-gcs-server until the block ends, named in the environment; lend what makes a bucket, as above."""
    _need("gcsfs")
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    words = ("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory")
    with Processes(folder) as processes, pytest.MonkeyPatch.context() as patch:
        processes.start(str(FETCHED / "fake-gcs-server"), *words, "-external-url", endpoint)
        processes.wait_for(lambda: listens(port))
        patch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        patch.setenv("FSSPEC_GS_TOKEN", "anon")
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon"})

        def new_bucket() -> str:
            name = f"calfin-{secrets.token_hex(6)}"
            httpx.post(f"{endpoint}/storage/v1/b?project=p", json={"name": name}).raise_for_status()
            return f"gs://{name}"

        yield new_bucket


def _need(client: str) -> None:
    if find_spec(client) is None or not FETCHED.is_dir():
        pytest.skip(f"{client} and its server are not here: tests/servers/azure_google.sh fetches and uses them")
