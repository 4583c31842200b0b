"""What identifies an item: what its pixels depend on. Signatures are in no file of a store, and in nothing it says."""

import gzip
import io
import json
import logging
from copy import deepcopy
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.files import serve_folder
from storing import contents, item

from calfin_cloud.cli import main
from calfin_cloud.sample import write_sample
from calfin_cloud.storage import item_digest, unsigned, unsigned_item

SECRET = "pl4nted"  # in every signature
SIGNATURES = {
    "AWS": "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=pl4ntedKEY%2F20260101%2Fus-west-2%2Fs3%2Faws4_request"
    "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Security-Token=pl4ntedTOKEN"
    "&X-Amz-Signature=pl4nted0123",
    "AWS, version 2": "AWSAccessKeyId=pl4ntedKEY&Signature=pl4nted%2Babc%3D&Expires=1767225600",
    "Azure": "sv=2023-01-03&st=2026-01-01T00%3A00%3A00Z&se=2026-01-02T00%3A00%3A00Z&sr=b&sp=r&sig=pl4nted%2Babc%3D",
    "Google": "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=pl4nted%40project.iam&X-Goog-Date=20260101T000000Z"
    "&X-Goog-Expires=3600&X-Goog-SignedHeaders=host&X-Goog-Signature=pl4nted0123",
    "Planetary": "st=2026-01-01T00%3A00%3A00Z&se=2026-01-02T00%3A00%3A00Z&sp=rl&sv=2025-07-05&sr=c"
    "&skoid=pl4nted-1&sktid=pl4nted-2&skt=2026&ske=2026&sks=b&skv=2025&sig=pl4nted%3D",
    "a token": "token=pl4nted.abc.def",
    "Tencent": "q-sign-algorithm=sha1&q-ak=pl4nted&q-sign-time=1767;1768&q-key-time=1767;1768&q-header-list=host"
    "&q-url-param-list=&q-signature=pl4nted",
    "Akamai": "hdnts=exp=1767225600~acl=/*~hmac=pl4nted&__token__=exp=1~hmac=pl4nted",
    "other words": "jwt=pl4nted&hmac=pl4nted&passwd=pl4nted&user_pwd=pl4nted",
}


def landsat(**asset):
    """Item with an asset that may be read, and one that may not."""
    nir = {"href": "https://a.example/scene/nir.tif", "file:checksum": "1220aa", "proj:shape": [10, 20]} | asset
    return item("a", **{"proj:epsg": 3413}) | {
        "assets": {"nir08": nir, "thumbnail": {"href": "https://a.example/t.png"}}
    }


@pytest.mark.parametrize("provider", SIGNATURES)
def test_a_signature_goes_and_all_else_of_an_address_stays(provider):
    signature = SIGNATURES[provider]
    for address in ("https://a.example/b/c.tif", "https://user:pl4nted@a.example/b/c.tif"):
        assert unsigned(f"{address}?{signature}") == "https://a.example/b/c.tif"
        assert (
            unsigned(f"{address}?versionId=7&{signature}&x-id=9#f") == "https://a.example/b/c.tif?versionId=7&x-id=9#f"
        )
        assert unsigned(f"{address}#{signature}") == "https://a.example/b/c.tif"
        assert unsigned(f"{address}?a=1#page=2&{signature}") == "https://a.example/b/c.tif?a=1#page=2"
    assert unsigned("# C# at https://a.example/b#st and #3") == "# C# at https://a.example/b#st and #3"
    told = unsigned(f"could not open 'https://a.example/c.tif?{signature}', HTTP 403 (why?)")
    assert told == "could not open 'https://a.example/c.tif', HTTP 403 (why?)"
    nested = unsigned(f"https://tiles.example/?url={quote('https://a.example/c.tif?' + signature, safe='')}&band=1")
    assert nested == "https://tiles.example/?band=1"


@pytest.mark.parametrize("provider", SIGNATURES)
def test_no_signature_is_left_anywhere_in_an_item_and_its_digest_is_that_of_the_unsigned_one(provider):
    plain, signature = landsat(), SIGNATURES[provider]
    signed = deepcopy(plain)
    for asset in signed["assets"].values():
        asset["href"] += f"?{signature}"
    signed["links"] = [{"rel": "self", "href": f"https://a.example/i?{signature}"}]
    signed["assets"]["nir08"]["href"] = f"https://a.example/scene/nir.tif#{signature}"
    keys = dict.fromkeys(("credential", "AWS_SECRET_ACCESS_KEY", "secretAccessKey", "passwd", "bearer"), "pl4nted")
    signed["assets"]["nir08"]["storage_options"] = keys | {"account_name": "a"}
    signed["assets"]["nir08"] |= {"auth:token": "pl4nted", "msft:sas": "pl4nted", "storage:api_key": ["pl4nted"]}
    signed["properties"]["headers"] = {"Authorization": "Bearer pl4nted", "Cookie": "pl4nted", "Accept": "*/*"}
    assert SECRET not in json.dumps(unsigned_item(signed))
    assert unsigned_item(signed)["assets"]["nir08"]["storage_options"] == {"account_name": "a"}
    assert unsigned_item(signed)["properties"]["headers"] == {"Accept": "*/*"}
    assert item_digest(signed) == item_digest(plain)
    assert SECRET in json.dumps(signed), "the item of the caller is not changed"


@pytest.mark.parametrize(
    "change",
    [
        {"links": [{"href": "x"}]},
        {"properties": {"datetime": "2020-07-01T14:00:00+02:00", "proj:epsg": 3413, "updated": "2026-01-01T00:00:00Z"}},
        {"properties": {"datetime": "2020-07-01T12:00:00.000Z", "proj:epsg": 3413, "view:sun_azimuth": 7}},
        {"stac_version": "1.1.0", "stac_extensions": ["x"], "geometry": None},
    ],
)
def test_what_pixels_do_not_depend_on_is_no_change(change):
    assert item_digest(landsat() | change) == item_digest(landsat())


@pytest.mark.parametrize(
    "change",
    [
        {"href": "https://a.example/scene/other.tif"},
        {"file:checksum": "1220ab"},
        {"file:size": 7},
        {"proj:shape": [10, 21]},
        {"raster:bands": [{"scale": 0.1}]},
        {"alternate": {"s3": {"href": "s3://b/scene/nir.tif"}}},
    ],
)
def test_what_pixels_depend_on_is_a_change(change):
    assert item_digest(landsat(**change)) != item_digest(landsat())


@pytest.mark.parametrize(
    "change",
    [
        {"id": "b"},
        {"collection": "other"},
        {"properties": {"datetime": "2020-07-01T12:00:01Z", "proj:epsg": 3413}},
        {"properties": {"datetime": "2020-07-01T12:00:00Z", "proj:epsg": 3413, "s2:processing_baseline": "05.00"}},
        {"properties": {"datetime": "2020-07-01T12:00:00Z", "proj:epsg": 3413, "processing:version": "05.11"}},
    ],
)
def test_another_scene_or_time_or_processing_is_a_change(change):
    assert item_digest(landsat() | change) != item_digest(landsat())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)


@given(JSON, JSON, JSON)
def test_any_json_has_a_digest_and_a_copy_without_signatures(properties, assets, more):
    odd = {"id": "a", "properties": properties, "assets": {"nir08": assets, "x": more}, "links": more}
    assert item_digest(odd) == item_digest(deepcopy(odd))
    once = unsigned_item(odd)
    assert json.dumps(unsigned_item(once)) == json.dumps(once)


# --- a whole run ------------------------------------------------------------------------------------------------------


def sign(folder, url):
    """Give the assets of each scene an address on a server with the signature of a provider; one leads nowhere."""
    paths = sorted(folder.glob("*/*/*.json"))
    for n, path in enumerate(paths):
        about = json.loads(path.read_text())
        signature = list(SIGNATURES.values())[n % len(SIGNATURES)]
        for asset in about["assets"].values():
            name = asset["href"] if n else "nothing.tif"
            asset["href"] = f"{url}/{(path.parent / name).resolve().relative_to(folder.resolve())}?{signature}"
        about["links"] += [{"rel": "via", "href": f"{url}/{path.name}{mark}{signature}"} for mark in "?#"]
        about["properties"] |= {"auth:token": SECRET, "headers": {"Authorization": f"Bearer {SECRET}"}}
        path.write_text(json.dumps(about))
    return len(paths)


def plain_bytes(store):
    """All bytes of a store, unpacked."""
    for path, data in contents(store).items():
        yield path.encode()
        if path.endswith(".gz"):
            yield gzip.decompress(data)
        elif path.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            yield repr(table.schema.metadata).encode() + repr(table.drop(["geometry"]).to_pylist()).encode()
        yield data


def test_no_signature_is_in_any_byte_of_a_store_nor_in_anything_that_is_said(tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    write_sample(tmp_path / "scenes", scenes=len(SIGNATURES))
    store, exported = str(tmp_path / "store"), str(tmp_path / "out")
    with serve_folder(tmp_path / "scenes") as server:
        n = sign(tmp_path / "scenes", server.url)
        where = ["--domains", str(tmp_path / "scenes/domains.geojson"), "--period", "1984/2024", "--variant", "once"]
        call = [
            "map",
            "--catalog",
            str(tmp_path / "scenes/catalog.json"),
            *where,
            "--store",
            store,
            "--cluster",
            "none",
        ]
        assert main(call) == 1, "one scene leads nowhere"
        assert main([*call, "--recompute"]) in (0, 1)
    fronts = json.loads(_said(capfd, ["status", store, "--json"]))
    assert fronts["states"]["failed"] == 1
    assert sum(fronts["states"].values()) == n >= len(SIGNATURES)
    for key in _keys(store):
        assert "127.0.0.1" in _said(capfd, ["show", store, key])
    main(["report", store, "--out", exported])
    main(["export", store, "--out", exported, "--format", "stac", "calfin"])
    said = "".join(capfd.readouterr()) + caplog.text
    everything = b"\n".join([*plain_bytes(store), *plain_bytes(exported), said.encode()])
    assert b"127.0.0.1" in everything
    assert SECRET.encode() not in everything


def _said(capfd, words):
    capfd.readouterr()
    main(words)
    out, err = capfd.readouterr()
    assert SECRET not in out + err
    return out


def _keys(store):
    from calfin_cloud.storage import finished_keys  # noqa: PLC0415

    return sorted(finished_keys(store))
