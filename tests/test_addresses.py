"""What a catalogue names is opened only where it may be: by name, by where the name leads, and at each redirect."""

import ipaddress
import logging
import pickle
import socket
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers.files import serve_folder
from servers.rasters import HERE, compute, make_item, ramp, write_tif

from calfin_cloud.imagery import addresses, check_address, files, retries, stack_scenes
from calfin_cloud.imagery.addresses import check_resolved
from calfin_cloud.schema import SceneError


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


REMOTE, LOCAL, LOOPBACK = "https://stac.example.org/v1", "/data/catalog.json", "http://127.0.0.1:8080/catalog.json"


@pytest.mark.parametrize(
    ("href", "catalog"),
    [
        ("https://data.example.org/a.tif?sig=1", REMOTE),
        ("http://data.example.org/a.tif", LOCAL),
        ("s3://usgs-landsat/a.TIF", REMOTE),
        ("gs://bucket/a.tif", REMOTE),
        ("az://container/a.tif", REMOTE),
        ("/data/a.tif", LOCAL),
        ("file:///data/a.tif", LOCAL),
        ("http://127.0.0.1:9000/a.tif", LOOPBACK),
        ("http://10.0.0.7/a.tif", LOOPBACK),
        ("http://127.0.0.1:9000/a.tif", LOCAL),
        ("http://169.254.1.1/a.tif", "http://169.254.1.1/catalog.json"),
    ],
)
def test_addresses_a_catalogue_may_name(href, catalog):
    check_address(href, catalog)


@pytest.mark.parametrize(
    ("href", "catalog"),
    [
        ("/etc/passwd", REMOTE),
        ("file:///etc/passwd", REMOTE),
        ("/etc/passwd", ""),
        ("a.tif", LOCAL),
        ("/vsicurl/http://127.0.0.1/a.tif", LOCAL),
        ("//vsizip/a.zip/a.tif", LOCAL),
        ("GTIFF_DIR:1:/data/a.tif", LOCAL),
        ("<VRTDataset></VRTDataset>", LOCAL),
        ("/data/a.VRT", LOCAL),
        ("https://data.example.org/a.vrt?x=.tif", REMOTE),
        ("ftp://data.example.org/a.tif", REMOTE),
        ("zip+https://data.example.org/a.zip", REMOTE),
        ("zip:///data/a.zip", LOCAL),
        ("http://localhost/a.tif", REMOTE),
        ("http://foo.localhost./a.tif", REMOTE),
        ("http://127.0.0.1/a.tif", REMOTE),
        ("http://127.1/a.tif", REMOTE),
        ("http://2130706433/a.tif", REMOTE),
        ("http://0x7f.1/a.tif", REMOTE),
        ("http://[::1]/a.tif", REMOTE),
        ("http://[::ffff:127.0.0.1]/a.tif", REMOTE),
        ("http://[64:ff9b::169.254.169.254]/latest/meta-data", REMOTE),
        ("http://[64:ff9b::a9fe:a9fe]/latest/meta-data", LOOPBACK),
        ("http://[64:ff9b:1::a9fe:a9fe]/latest/meta-data", LOCAL),
        ("http://[2002:a9fe:a9fe::1]/latest/meta-data", REMOTE),
        ("http://[2002:a9fe:a9fe::]/latest/meta-data", LOCAL),
        ("http://[::ffff:169.254.169.254]/latest/meta-data", LOCAL),
        ("http://[::ffff:a9fe:a9fe]/latest/meta-data", LOOPBACK),
        ("http://[::169.254.169.254]/latest/meta-data", LOCAL),
        ("http://[fe80::1]/a.tif", LOCAL),
        ("http://0.0.0.0/a.tif", LOCAL),
        ("http://user@10.1.2.3/a.tif", REMOTE),
        ("http://192.168.0.4/a.tif", REMOTE),
        ("http://169.254.169.254/latest/meta-data", REMOTE),
        ("http://169.254.169.254/latest/meta-data", LOCAL),
        ("http://169.254.169.254/latest/meta-data", LOOPBACK),
        ("http://169.254.169.254./latest/meta-data", LOCAL),
        ("http://[::ffff:0:169.254.169.254]/latest/meta-data", LOCAL),
        ("http://192.0.0.192/latest/meta-data", REMOTE),
        ("http://[fec0::1]/a.tif", REMOTE),
        ("", REMOTE),
        ("http:///a.tif", REMOTE),
        ("http://[/a.tif", REMOTE),
        ("http://%31%32%37.0.0.1/a.tif", REMOTE),
        ("http://\u2460\u2461\u2466.0.0.1/a.tif", REMOTE),
        ("http://10.0.0.1\\@data.example.org/a.tif", REMOTE),
        ("http://user@data.example.org/a.tif", REMOTE),
    ],
)
def test_addresses_a_catalogue_may_not_name(href, catalog):
    with pytest.raises(SceneError, match="refused") as caught:
        check_address(href, catalog)
    assert caught.value.reason == "refused_address"


def test_a_local_file_of_an_item_of_ones_own_says_how_it_may_be_opened():
    with pytest.raises(SceneError, match=r"names no catalogue: .*extra_fields\['calfin:catalog'\]"):
        check_address("/data/a.tif", "")
    check_address("/data/a.tif", "/data/items.json")


@pytest.mark.parametrize(
    ("leads_to", "catalog", "is_refused"),
    [
        ("127.0.0.1", REMOTE, True),
        ("::1", REMOTE, True),
        ("::ffff:10.0.0.1", REMOTE, True),
        ("64:ff9b::a9fe:a9fe", LOCAL, True),
        ("2002:a9fe:a9fe::1", LOOPBACK, True),
        ("64:ff9b::5db8:d822", REMOTE, False),
        ("169.254.169.254", LOCAL, True),
        ("0.0.0.0", LOCAL, True),
        ("127.0.1.1", LOCAL, False),
        ("127.0.0.1", "https://data.example.org/catalog.json", False),
        ("10.0.0.1", REMOTE, True),
        ("192.168.1.1", REMOTE, True),
        ("10.0.0.1", LOOPBACK, False),
        ("169.254.169.254", LOOPBACK, True),
        ("93.184.216.34", REMOTE, False),
    ],
)
def test_name_that_leads_to_a_private_host_is_refused_on_the_worker(monkeypatch, leads_to, catalog, is_refused):
    places = {"data.example.org": leads_to, "stac.example.org": "93.184.216.35"}
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda host, _: [(2, 1, 6, "", (places[host], 0))])
    if is_refused:
        with pytest.raises(SceneError, match="leads to"):
            check_resolved("https://data.example.org/a.tif", catalog)
    else:
        check_resolved("https://data.example.org/a.tif", catalog)


def test_catalogue_of_a_private_network_may_name_hosts_in_it(monkeypatch):
    places = {"data.example.org": "10.0.0.7", "stac.example.org": "10.0.0.8"}
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda host, _: [(2, 1, 6, "", (places[host], 0))])
    check_resolved("https://data.example.org/a.tif", REMOTE)


@given(st.text(max_size=60))
def test_no_address_whatever_passes_unless_its_scheme_is_known(href):
    try:
        check_address(href, REMOTE)
    except SceneError:
        return
    assert href.strip().lower().startswith(("http://", "https://", "s3://", "gs://", "az://"))


@given(st.ip_addresses())
def test_address_that_is_not_public_is_refused_however_it_is_written(address):
    spelled = [f"[{address}]"] if address.version == 6 else [str(address), str(int(address)), hex(int(address))]
    if address.version == 4:
        n = int(address)
        spelled += [f"[::ffff:{address}]", f"[64:ff9b::{address}]", f"[2002:{n >> 16:x}:{n & 0xFFFF:x}::1]"]
    for host in spelled:
        try:
            check_address(f"http://{host}/a.tif", REMOTE)
        except SceneError:
            assert not addresses.is_public(addresses.ip_address(host.strip("[]")))
            assert address.version == 6 or not addresses.is_public(address)
        else:
            assert addresses.is_public(addresses.ip_address(host.strip("[]")))
            assert address.version == 6 or addresses.is_public(address)


@given(st.sampled_from(["http", "https", "s3", "gs", "az", "file", ""]), st.text(max_size=30), st.text(max_size=30))
def test_what_may_be_opened_for_a_remote_catalogue_may_be_for_a_local_one(scheme, host, path):
    href = f"{scheme}://{host}/{path}" if scheme else f"/{path}"
    try:
        check_address(href, REMOTE)
    except SceneError:
        return
    check_address(href, LOCAL)


# Redirects: a server is public here if it says so, since no test may ask one that is


@pytest.fixture
def public(tmp_path, monkeypatch):
    """A server whose address counts as public, and one beside it that is as private as it is."""
    with serve_folder(tmp_path) as public, serve_folder(tmp_path) as private:
        host = f"data.example.org:{public.server_port}"
        real = socket.getaddrinfo

        def resolve(name, *rest, **more):
            return real("127.0.0.1" if name == "data.example.org" else name, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        monkeypatch.setattr(addresses, "_addresses_of", lambda name: PLACES[name])
        write_tif(tmp_path / "a.tif", ramp())
        public.answers["to-private.tif"] = [(302, {"Location": f"{private.url}/a.tif"})] * 9
        public.answers["to-metadata.tif"] = [(307, {"Location": "http://169.254.169.254/latest"})] * 9
        public.answers["to-file.tif"] = [(301, {"Location": f"file://{tmp_path}/a.tif"})] * 9
        public.answers["to-name.tif"] = [(302, {"Location": "http://inside.example.org/a.tif"})] * 9
        public.answers["to-vrt.tif"] = [(302, {"Location": "/a.vrt"})] * 9
        public.answers["in-circles.tif"] = [(302, {"Location": "/in-circles.tif"})] * 9
        yield f"http://{host}", private


PLACES = {
    "data.example.org": {ipaddress.ip_address("93.184.216.34")},
    "stac.example.org": {ipaddress.ip_address("93.184.216.35")},
    "inside.example.org": {ipaddress.ip_address("10.0.0.5")},
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("to-private.tif", "loopback, private"),
        ("to-metadata.tif", "loopback, private"),
        ("to-file.tif", "redirects to it"),
        ("to-name.tif", "leads to 10.0.0.5"),
        ("to-vrt.tif", "refers to other files"),
        ("in-circles.tif", "more than 5 redirects"),
    ],
)
def test_redirect_to_what_could_not_be_named_is_not_followed(public, name, words):
    url, private = public
    with pytest.raises(SceneError, match=words) as caught:
        compute(stack_scenes([make_item(REMOTE, {"nir08": f"{url}/{name}"})], HERE))
    assert caught.value.reason == "refused_address"
    assert private.requests.total() == 0


def test_redirect_within_a_catalogue_is_followed(tmp_path):
    write_tif(tmp_path / "a.tif", ramp())
    with serve_folder(tmp_path) as server, serve_folder(tmp_path) as other:
        server.answers["old.tif"] = [(302, {"Location": f"{other.url}/a.tif"})]
        item = make_item(f"{server.url}/c.json", {"nir08": f"{server.url}/old.tif"})
        np.testing.assert_array_equal(compute(stack_scenes([item], HERE))[0, 0], ramp())
        assert server.requests["old.tif"] == 1  # GDAL is given the address where the file is


# Secrets

SECRET = "PLANTED-5ecret"


@pytest.mark.parametrize("name", ["a.tif", "nothing.tif", "text.tif", "cut/a.tif", "busy.tif", "torn.tif"])
def test_signatures_are_in_no_message_log_or_traceback(tmp_path, monkeypatch, caplog, capfd, name):
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setitem(files.GDAL_SETTINGS, "GDAL_HTTP_RETRY_DELAY", 0.01)
    caplog.set_level(logging.DEBUG)
    write_tif(tmp_path / "a.tif", ramp())
    (tmp_path / "text.tif").write_text("<html>log in</html>" * 99)
    (tmp_path / "torn.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:9000])
    with serve_folder(tmp_path) as server:
        server.answers["busy.tif"] = [(503, {})] * 999
        item = make_item(f"{server.url}/c.json", {"nir08": f"{server.url}/{name}?sig={quote(SECRET)}&se=2030"})
        scenes = stack_scenes([item], HERE)
        if name == "a.tif":
            compute(scenes)
        else:
            with pytest.raises(SceneError) as caught:
                compute(scenes)
            assert name.rpartition("/")[2] in str(caught.value)
            assert SECRET.encode() not in pickle.dumps(caught.value)
            error = caught.value
            while error is not None:
                assert SECRET not in f"{error!r} {error}"
                error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert any(record.name.startswith("rasterio") for record in caplog.records)
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())


def test_credentials_of_the_environment_are_in_no_graph(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PC_SDK_SUBSCRIPTION_KEY"):
        monkeypatch.setenv(name, SECRET)
    blob = f"https://account.blob.core.windows.net/container/a.tif?sig={SECRET}"
    items = [
        make_item("https://planetarycomputer.microsoft.com/api/stac/v1", {"nir08": blob}),
        make_item(REMOTE, {"nir08": "s3://usgs-landsat/a.TIF"}),
    ]
    scenes = stack_scenes(items, HERE)
    assert SECRET.encode() not in pickle.dumps(dict(scenes.data.dask))
