"""How errors of object stores end a verb: what is a mistake, what may be over by the next call, and in which words."""

import argparse
import json

import pandas as pd
import pytest
import s3fs
from servers.proxy import FaultProxy, listening, loopback_certificate
from storing import DOMAIN, LINE, item, new_store, polygon_rows, rejected_rows, rows, write

from calfin_cloud.cli import main
from calfin_cloud.cli.searching import period_of
from calfin_cloud.storage import Tables, open_store, write_batch


@pytest.fixture
def behind_tls(s3, request, tmp_path, monkeypatch):
    """Address of a store that is not there yet on an S3 server with a certificate of our own, and the certificate."""
    path, store = tmp_path / "authority.pem", new_store("s3", request)
    with listening(FaultProxy(s3.endpoint, loopback_certificate(path))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        yield store, path
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_certificate_that_is_not_trusted_is_a_mistake_since_no_later_call_is_better(behind_tls, capsys, monkeypatch):
    store, certificate = behind_tls
    assert main(["status", store]) == 2
    said = capsys.readouterr().err
    assert "self-signed certificate" in said
    assert "AWS_CA_BUNDLE" in said
    assert "later" not in said
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["status", store]) == 2
    assert f"{store} is not a store of calfin" in capsys.readouterr().err


def test_a_list_of_certificates_that_is_not_there_is_a_mistake(behind_tls, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    assert main(["status", behind_tls[0]]) == 2
    said = capsys.readouterr().err
    assert "a file that the environment names is missing, such as that of AWS_CA_BUNDLE" in said
    assert "later" not in said


@pytest.mark.usefixtures("s3")
def test_a_name_that_no_bucket_can_have_is_a_mistake_told_in_a_line(capsys):
    assert main(["status", "s3://No_Bucket!/fronts"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert 'Invalid bucket name "No_Bucket!"' in said


def test_keys_that_may_not_write_are_told_which_rights_a_store_needs_and_series_what_is_refused(
    s3, request, tmp_path, capsys, monkeypatch
):
    store = new_store("s3", request)
    open_store(store, crs=DOMAIN.crs, made_by={})
    write(store, "a", line=LINE)
    reader, bucket = s3.new_user("reader"), store.removeprefix("s3://").partition("/")[0]
    own, all_of_it = {"AWS": ["arn:aws:iam:::user/reader"]}, [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allowed = {"Effect": "Allow", "Principal": own, "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": all_of_it}
    s3.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", reader.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", reader.secret)
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["compact", store]) == 2
    assert "that they may list what lies below the address, and read, write and delete it" in capsys.readouterr().err
    assert main(["timeseries", store, "--out", str(tmp_path / "out")]) == 0
    assert "since the store may not be written: the object store refuses: An error" in capsys.readouterr().err
    s3fs.S3FileSystem.clear_instance_cache()


# --- a schedule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("years", [["2019", "2199"], ["2199"]])
def test_a_scene_dated_in_the_future_is_not_the_newest_one(years, tmp_path):
    store = str(tmp_path / "store")
    open_store(store, crs=DOMAIN.crs, made_by={})
    for year in years:
        fronts = rows(f"scene-{year}").assign(datetime=pd.Timestamp(year, tz="UTC"))
        tables = Tables(fronts, rejected_rows(), polygon_rows())
        write_batch(store, tables, {f"Store/scene-{year}": item(f"scene-{year}")}, recipe={"masks": "a", "fronts": "b"})
    asked = argparse.Namespace(period="newest-10-days", store=store)
    if years == ["2199"]:
        with pytest.raises(ValueError, match="newest scene of a store, which has none"):
            period_of(asked)
    else:
        assert period_of(asked) == "2018-12-22/.."
