"""A real STAC API on loopback: stac-fastapi with pgstac, on a PostgreSQL of Debian's packages."""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGQUIT
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool
from pypgstac.db import PgstacDB
from pypgstac.load import Loader, Methods
from pypgstac.migrate import Migrate

from servers.processes import Processes, free_ports, listens, need

PACKAGES = "postgresql-15-postgis-3"


@dataclass(frozen=True)
class StacServer:
    """A STAC API: its address, and how to put collections and items into it."""

    url: str
    database: str

    def load(self, collections: Iterable[dict[str, Any]], items: Iterable[dict[str, Any]]) -> None:
        """Load STAC collections and then items (JSON values); one of a known id takes the other's place."""
        with _pgstac(self.database) as pgstac:
            loader = Loader(pgstac)
            loader.load_collections(iter(collections), Methods.upsert)
            loader.load_items(iter(items), Methods.upsert)

    def drop_items(self, collection: str) -> None:
        """Delete all items of a collection."""
        with _pgstac(self.database) as pgstac:
            list(pgstac.query("DELETE FROM items WHERE collection = %s RETURNING id", (collection,)))


@contextmanager
def serve_pgstac() -> Iterator[StacServer]:
    """Run a STAC API until the block ends; it starts empty."""
    newest = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
    programs = {name: str(newest / name) for name in ("initdb", "postgres")}
    need(list(programs.values()), PACKAGES)
    port, api = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="pgstac-", ignore_cleanup_errors=True) as folder:
        shutil.chown(folder, "postgres")  # which does not run as root
        with (
            Processes(Path(folder), user="postgres", end=SIGQUIT) as postgres,
            Processes(Path(folder), environment=_settings(port)) as server,
        ):
            _start_database(postgres, programs, port)
            where = ("--host", "127.0.0.1", "--port", str(api), "--log-level", "warning")
            server.start(sys.executable, "-m", "uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app", *where)
            with _pgstac(_address(port, "stac")) as pgstac:
                Migrate(pgstac).run_migration()
            server.wait_for(lambda: listens(api))
            yield StacServer(f"http://127.0.0.1:{api}", _address(port, "stac"))


def _settings(port: int) -> dict[str, str]:
    """Say to the API where its database is."""
    names = {"HOST": "127.0.0.1", "PORT": str(port), "USER": "postgres", "PASSWORD": "none", "DATABASE": "stac"}
    return {f"PG{name}": value for name, value in names.items()}


def _start_database(postgres: Processes, programs: dict[str, str], port: int) -> None:
    data = str(postgres.folder / "data")
    postgres.run(programs["initdb"], "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
    where = ("-c", "listen_addresses=127.0.0.1", "-p", str(port), "-k", str(postgres.folder))
    postgres.start(programs["postgres"], "-D", data, *where, "-c", "fsync=off")
    postgres.wait_for(lambda: _answers(port))
    with psycopg.connect(_address(port), autocommit=True) as connection:
        connection.execute("create database stac")


def _answers(port: int) -> bool:
    try:
        psycopg.connect(_address(port)).close()
    except psycopg.OperationalError:
        return False
    return True


def _address(port: int, database: str = "postgres") -> str:
    return f"host=127.0.0.1 port={port} user=postgres dbname={database}"


@contextmanager
def _pgstac(address: str) -> Iterator[PgstacDB]:
    with ConnectionPool(address, min_size=1, max_size=2) as pool, PgstacDB(pool=pool) as pgstac:
        yield pgstac
