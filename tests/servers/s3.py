"""A real S3 server on loopback: the gateway of a one-node Ceph, from Debian's packages."""

import secrets
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from servers.processes import Processes, free_ports, listens, need

PROGRAMS = ("ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
PACKAGES = "radosgw ceph-mon ceph-mgr ceph-osd ceph-common"

CLUSTER = str(uuid.uuid4())

SETTINGS = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{monitor}/0
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
pid file = {folder}/$name.pid
setuser match path =
[mon]
mon data = {folder}/mon
mon data avail crit = 1
paxos propose interval = 0.02
paxos min wait = 0.01
[mgr]
mgr data = {folder}/mgr
mgr modules =
mgr initial modules =
[osd]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
[client]
rgw data = {folder}/rgw
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw run sync thread = false
ms mon client mode = crc secure
"""


@dataclass(frozen=True)
class S3:
    """An S3 server as one of its users sees it: its address `http://127.0.0.1:PORT`, and keys made for this run."""

    endpoint: str
    processes: Processes = field(repr=False)
    key: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(30))

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets so that GDAL, s3fs and boto3 use this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_S3_ENDPOINT": self.endpoint.removeprefix("http://"),
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_EC2_METADATA_DISABLED": "true",
            "CPL_AWS_EC2_API_ROOT_URL": self.endpoint,  # for GDAL, which asks there for keys: it has none
            "NO_PROXY": "127.0.0.1,localhost",
        }

    @property
    def storage_options(self) -> dict[str, Any]:
        """Arguments for fsspec where the environment is another one."""
        return {"key": self.key, "secret": self.secret, "client_kwargs": {"endpoint_url": self.endpoint}}

    def client(self) -> Any:
        """The boto3 client of this user."""
        keys = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret, "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.endpoint, **keys)

    def new_user(self, name: str) -> "S3":
        """Make another user, who owns buckets of their own."""
        user = S3(self.endpoint, self.processes)
        about = (f"--uid={name}", f"--display-name={name}", f"--access-key={user.key}", f"--secret-key={user.secret}")
        self.processes.run("radosgw-admin", "-n", "client.rgw", "user", "create", *about)
        return user


@contextmanager
def serve_s3() -> Iterator[S3]:
    """Run an S3 server until the block ends. It keeps all in memory and starts empty."""
    need(PROGRAMS, PACKAGES)
    with tempfile.TemporaryDirectory(prefix="s3-", ignore_cleanup_errors=True) as name:  # short: it holds sockets
        port, monitor = free_ports(2)
        with _prepare(Path(name), port, monitor) as processes:
            _start_cluster(processes, monitor)
            user = S3(f"http://127.0.0.1:{port}", processes).new_user("test")
            processes.start("radosgw", "-n", "client.rgw", "-f")
            processes.wait_for(lambda: listens(port))
            yield user


def _prepare(folder: Path, port: int, monitor: int) -> Processes:
    """Write the settings and make the folders of each program."""
    for part in ("mon", "mgr", "osd", "rgw"):
        (folder / part).mkdir()
    settings = SETTINGS.format(fsid=CLUSTER, folder=folder, port=port, monitor=monitor)
    (folder / "ceph.conf").write_text(settings)
    return Processes(folder, environment={"CEPH_CONF": str(folder / "ceph.conf")})


def _start_cluster(processes: Processes, monitor: int) -> None:
    """Start monitor, manager and storage."""
    monmap, osd = str(processes.folder / "monmap"), str(uuid.uuid4())
    where = ("--fsid", CLUSTER, "--addv", "a", f"[v2:127.0.0.1:{monitor}]")
    processes.run("monmaptool", "--create", *where, "--enable-all-features", monmap)
    processes.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
    processes.start("ceph-mon", "-i", "a", "-f")
    processes.start("ceph-mgr", "-i", "x", "-f")
    processes.run("ceph", "osd", "new", osd)
    processes.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    processes.start("ceph-osd", "-i", "0", "-f")
