"""A bucket whose server takes connections and never answers ends every verb, soon, with the word to try again."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import s3fs
from botocore.exceptions import HTTPClientError
from servers.proxy import FaultProxy, Plan, listening

from calfin_cloud import object_stores
from calfin_cloud.cli import main
from calfin_cloud.cli.ends import may_pass
from calfin_cloud.object_stores import ATTEMPTS, ROUNDS, open_files
from calfin_cloud.storage import files, leases
from calfin_cloud.storage.files import READERS, create_whole, read_each, write_whole
from calfin_cloud.storage.zarr_places import zarr_place

VERBS = (
    *("status {}", "compact {}", "retrace {}", "retry {}", "review {}", "reconcile {}", "show {} scene", "merge {}"),
    *("export {} --format stac --out out", "report {} --out out", "timeseries {} --out out"),
    *(
        "fjords --domains {}/d.geojson --store {} --out d.geojson",
        "map --catalog c.json --domains {}/d.geojson --period 2019 --store {}",
    ),
)


@pytest.fixture
def silent(monkeypatch, tmp_path) -> Iterator[FaultProxy]:
    """A server that answers nothing, in the environment; clients give up on each request after a tenth of a second."""
    keys = {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1", "MAX_ATTEMPTS": "1"}
    with listening(FaultProxy("http://127.0.0.1:9")) as proxy:
        proxy.suffer(Plan(("hang",), 1.0, 1))
        for name, value in (keys | {"ENDPOINT_URL": proxy.url}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setattr(object_stores, "SILENT_S", 0.1)
        monkeypatch.chdir(tmp_path)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("call", VERBS, ids=[call.partition(" ")[0] for call in VERBS])
def test_a_verb_asks_a_silent_server_a_few_times_and_says_to_try_again_later(call, silent, capsys):
    assert main(call.replace("{}", "s3://bucket/store").split()) == 3
    said = capsys.readouterr().err
    assert "no answer from a server" in said
    assert "Traceback" not in said
    assert silent.asked.total() <= 2 * ROUNDS


def test_a_store_that_is_silent_when_it_is_taken_ends_the_run_though_nothing_can_be_given_back(silent, monkeypatch):
    """Each file of the lease that could not be deleted was asked for as long as the first one."""
    monkeypatch.setattr(leases, "RENEWS_S", 0.05)
    with pytest.raises(OSError, match="timeout"), leases.hold_lease("s3://bucket/store", "map"):
        pass
    assert silent.asked.total() <= 2 * ROUNDS


@pytest.mark.usefixtures("silent")
def test_how_often_a_silent_server_is_asked_is_bounded_for_tables_and_masks_unless_the_environment_says_it(monkeypatch):
    fs, _ = open_files("s3://bucket/store")
    assert (fs.retries, "retries" in fs.config_kwargs) == (ROUNDS, False)
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    for fs in (open_files("s3://bucket/store")[0], zarr_place("s3://bucket/store/masks").fs):
        assert (fs.retries, fs.config_kwargs["retries"]) == (ROUNDS, {"total_max_attempts": ATTEMPTS})


@pytest.mark.parametrize("write", [write_whole, create_whole])
def test_a_server_that_takes_no_body_is_given_up_too(write, monkeypatch):
    """Its client asks whether to send the body (100-continue), and waited for the answer for ever."""
    monkeypatch.setattr(files, "WRITE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        how = {"retries": {"total_max_attempts": 1}, "read_timeout": 0.1}
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        fs = s3fs.S3FileSystem(key="k", secret="s", endpoint_url=address, config_kwargs=how)
        with pytest.raises((TimeoutError, HTTPClientError)) as caught:
            write(fs, "bucket/store/file", b"body")
    assert may_pass(caught.value)


def test_of_many_files_those_that_are_not_yet_asked_for_are_left_when_one_fails():
    """Of 20,000 tables all were waited for, sixteen at a time, though the first sixteen had failed."""
    asked, all_begun = [], threading.Barrier(READERS)

    def read(number: int) -> None:
        asked.append(number)
        all_begun.wait()
        if number == 0:  # the error that is met first comes last
            time.sleep(0.05)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        read_each(read, range(2 * READERS))
    assert len(asked) == READERS
