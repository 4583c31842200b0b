"""Each provider gets what it asks for: payer, signature, server, fresh token; and nothing of absurd size is read."""

import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import boto3
import numpy as np
import pystac
import pytest
import rasterio
from PIL import Image
from servers.files import serve_folder
from servers.rasters import HERE, LEFT, PIXEL, TOP, UTM, compute, make_item, ramp, write_tif

from calfin_cloud.imagery import access, files, read_image, retries, stack_scenes
from calfin_cloud.imagery.access import address_of
from calfin_cloud.imagery.files import settings_of
from calfin_cloud.schema import SceneError

PLANETARY = "https://planetarycomputer.microsoft.com/api/stac/v1"
BLOB = "https://landsateuwest.blob.core.windows.net/landsat-c2/a.tif"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "PLANTED-5ecret"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # where credentials may lie
    monkeypatch.setattr(files, "VIRTUAL_MACHINE", ())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A server that answers as S3 does to one who reads, and shows what it was asked with."""
    (tmp_path / "bucket").mkdir()
    write_tif(tmp_path / "bucket" / "a.tif", ramp())
    with serve_folder(tmp_path) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


def read(href, **fields):
    return compute(stack_scenes([make_item("https://stac.example.org", {"nir08": href}, **fields)], HERE))[0, 0]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_S3_ENDPOINT"])
@pytest.mark.parametrize("has_scheme", [True, False])
def test_server_of_s3_in_the_environment_is_used_in_the_words_of_all_tools(bucket, monkeypatch, name, has_scheme):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(name, bucket.url if has_scheme else bucket.url.removeprefix("http://"))
    if not has_scheme:
        monkeypatch.setenv("AWS_HTTPS", "NO")
    np.testing.assert_array_equal(read("s3://bucket/a.tif"), ramp())
    assert bucket.requests["bucket/a.tif"] > 0


def test_without_credentials_requests_go_unsigned(bucket):
    np.testing.assert_array_equal(read("s3://bucket/a.tif"), ramp())
    assert not any("Authorization" in headers for headers in bucket.headers)


def test_with_credentials_requests_are_signed_and_say_who_pays_only_if_told(bucket, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    np.testing.assert_array_equal(read("s3://bucket/a.tif"), ramp())
    assert all("AKIDEXAMPLE" in headers["Authorization"] for headers in bucket.headers)
    assert not any("x-amz-request-payer" in headers for headers in bucket.headers)
    assert not any("PLANTED" in str(headers) for headers in bucket.headers)


def test_keys_in_the_environment_make_one_session_of_boto3_however_many_scenes_are_read(tmp_path, monkeypatch):
    made, new = [], boto3.Session

    def counted(*args, **kwargs):
        made.append(new(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(boto3, "Session", counted)
    write_tif(tmp_path / "a.tif", ramp())
    item = make_item(str(tmp_path / "catalog.json"), {"nir08": str(tmp_path / "a.tif")})
    for name, value in (KEYS | {"AWS_ACCESS_KEY_ID": "AKIDFIRST"}).items():
        monkeypatch.setenv(name, value)
    for _ in range(3):
        compute(stack_scenes([item], HERE))
    assert [session.get_credentials().access_key for session in made] == ["AKIDFIRST"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSECOND")
    compute(stack_scenes([item], HERE))
    assert [session.get_credentials().access_key for session in made] == ["AKIDFIRST", "AKIDSECOND"]


@pytest.mark.parametrize("told", ["by the item", "by the asset", "by its scheme"])
def test_no_item_can_make_the_reader_pay(bucket, monkeypatch, told):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    item = make_item("https://stac.example.org", {"nir08": "s3://bucket/a.tif"})
    asset = item.assets["nir08"].extra_fields
    if told == "by the item":
        item.properties["storage:requester_pays"] = True
    elif told == "by the asset":
        asset["storage:requester_pays"] = True
    else:
        item.properties["storage:schemes"] = {"aws": {"requester_pays": True}}
        asset["storage:refs"] = ["aws"]
    compute(stack_scenes([item], HERE))
    assert bucket.headers
    assert not any("x-amz-request-payer" in headers for headers in bucket.headers)


def test_reader_pays_where_the_environment_says_so(bucket, monkeypatch):
    for name, value in (KEYS | {"AWS_REQUEST_PAYER": "requester"}).items():
        monkeypatch.setenv(name, value)
    np.testing.assert_array_equal(read("s3://bucket/a.tif"), ramp())
    assert all(headers["x-amz-request-payer"] == "requester" for headers in bucket.headers)


def test_reader_who_is_to_pay_without_credentials_is_told_what_is_missing(bucket):
    with pytest.raises(SceneError, match="set AWS credentials") as caught:
        read("s3://usgs-landsat/a.tif")
    assert caught.value.reason == "unreadable"


def test_known_buckets_have_their_region_and_payer_or_need_no_signature(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "mine")
    landsat, sentinel, other = (settings_of(f"s3://{b}/a.tif") for b in ("usgs-landsat", "sentinel-cogs", "my-bucket"))
    assert (landsat["AWS_REQUEST_PAYER"], landsat["AWS_REGION"]) == ("requester", "us-west-2")
    assert (sentinel["AWS_NO_SIGN_REQUEST"], sentinel["AWS_REGION"]) == ("YES", "us-west-2")
    assert not any(name.startswith("AWS") for name in other)
    assert not any(name.startswith("AWS") for name in settings_of("https://data.example.org/a.tif"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_S3_ENDPOINT", "s3.amazonaws.com")  # the store elsewhere, the scenes at Amazon
    assert "AWS_S3_ENDPOINT" not in settings_of("s3://usgs-landsat/a.tif")


def test_the_bucket_of_copernicus_is_read_from_its_own_server_unless_the_environment_names_one(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for elsewhere in ("", "s3.amazonaws.com"):
        monkeypatch.setenv("AWS_S3_ENDPOINT", elsewhere)
        settings = settings_of("s3://eodata/a.jp2")
        assert (settings["AWS_S3_ENDPOINT"], settings["AWS_HTTPS"]) == ("eodata.dataspace.copernicus.eu", "YES")
        assert "AWS_S3_ENDPOINT" not in settings_of("s3://usgs-landsat/a.tif")
    monkeypatch.setenv("AWS_S3_ENDPOINT", "http://mirror.example.org")
    assert settings_of("s3://eodata/a.jp2")["AWS_S3_ENDPOINT"] == "mirror.example.org"


def test_reader_of_copernicus_without_keys_is_told_which_are_missing():
    with pytest.raises(SceneError, match=r"keys of eodata\.dataspace\.copernicus\.eu: set AWS_ACCESS_KEY_ID") as caught:
        read("s3://eodata/a.jp2")
    assert caught.value.reason == "unreadable"


def test_keys_for_one_bucket_alone_are_taken_from_the_file_of_settings_of_gdal(bucket, tmp_path, monkeypatch):
    lines = {"path": "/vsis3/bucket", "AWS_S3_ENDPOINT": bucket.url.removeprefix("http://"), "AWS_HTTPS": "NO"}
    lines |= {"AWS_VIRTUAL_HOSTING": "FALSE"} | KEYS
    text = "\n".join(["[credentials]", "[.own]", *(f"{name}={value}" for name, value in lines.items())])
    (tmp_path / "gdalrc").write_text(text)
    monkeypatch.setenv("GDAL_CONFIG_FILE", str(tmp_path / "gdalrc"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # of the store
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:  # GDAL reads it at its start
        np.testing.assert_array_equal(pool.submit(read, "s3://bucket/a.tif").result(), ramp())
    assert all("AKIDEXAMPLE" in headers["Authorization"] for headers in bucket.headers)


@pytest.mark.parametrize("status", [403, 404])
def test_object_that_is_not_there_or_not_ours_is_not_asked_for_again(bucket, monkeypatch, status):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    code = {403: "AccessDenied", 404: "NoSuchKey"}[status]
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    bucket.answers["bucket/b.tif"] = [(status, {"Content-Type": "application/xml"}, body.encode())] * 99
    with pytest.raises(SceneError) as caught:
        read("s3://bucket/b.tif")
    assert caught.value.reason == "unreadable"
    assert "attempts" not in str(caught.value)
    assert "PLANTED" not in str(caught.value)


def test_busy_bucket_is_asked_again_and_then_unreachable(bucket, monkeypatch):
    monkeypatch.setitem(files.GDAL_SETTINGS, "GDAL_HTTP_RETRY_DELAY", 0.01)
    bucket.answers["bucket/a.tif"] = [(503, {})] * 6
    np.testing.assert_array_equal(read("s3://bucket/a.tif"), ramp())
    bucket.answers["bucket/a.tif"] = [(503, {})] * 999
    with pytest.raises(SceneError) as caught:
        read("s3://bucket/a.tif")
    assert caught.value.reason == "unreachable"


def test_a_server_that_gives_no_parts_of_files_is_suspected_where_a_raster_cannot_be_opened(tmp_path):
    write_tif(tmp_path / "a.tif", np.random.default_rng(0).random((600, 600)))
    with serve_folder(tmp_path) as server:
        whole = (200, {"Content-Type": "image/tiff"}, (tmp_path / "a.tif").read_bytes())
        server.answers["a.tif"] = [whole] * 20
        with pytest.raises(SceneError, match=r"or its server gives no parts of files \(HTTP ranges\)"):
            compute(stack_scenes([make_item(server.url, {"nir08": f"{server.url}/a.tif"})], HERE))


def test_landsat_of_usgs_is_read_from_its_bucket():
    alternate = {"alternate": {"s3": {"href": "s3://usgs-landsat/a.TIF"}}}
    asset = pystac.Asset("https://landsatlook.usgs.gov/data/a.TIF", extra_fields=alternate)
    assert address_of(asset, "https://landsatlook.usgs.gov/stac-server") == "s3://usgs-landsat/a.TIF"


# Tokens of the Planetary Computer


@pytest.fixture
def tokens(tmp_path, monkeypatch):
    """A server of blobs that takes the newest of its tokens only; `signed` counts those given out."""
    write_tif(tmp_path / "a.tif", ramp())
    given = []
    with serve_folder(tmp_path) as server, warnings.catch_warnings(action="ignore"):
        import planetary_computer  # noqa: PLC0415
        from planetary_computer import sas  # noqa: PLC0415

        def sign(href):
            if "token" not in sas.TOKEN_CACHE:
                given.append(href)
                sas.TOKEN_CACHE["token"] = f"SECRET-{len(given)}"
            return f"{server.url}/a.tif?sig={sas.TOKEN_CACHE['token']}"

        monkeypatch.setattr(sas, "TOKEN_CACHE", {})
        monkeypatch.setattr(planetary_computer, "sign_url", sign)
        yield SimpleNamespace(server=server, given=given)


def test_planetary_computer_addresses_are_signed_by_the_reader_and_not_in_the_graph(tokens):
    scenes = stack_scenes([make_item(PLANETARY, {"nir08": f"{BLOB}?sig=SECRET-0"})], HERE)
    assert b"SECRET" not in pickle.dumps(dict(scenes.data.dask))
    assert not tokens.given
    np.testing.assert_array_equal(compute(scenes)[0, 0], ramp())
    assert tokens.given == [BLOB]


def test_expired_token_is_renewed_once(tokens):
    item = make_item(PLANETARY, {"nir08": BLOB})
    tokens.server.answers["a.tif"] = [(403, {})]
    np.testing.assert_array_equal(compute(stack_scenes([item], HERE))[0, 0], ramp())
    assert len(tokens.given) == 2
    tokens.server.answers["a.tif"] = [(403, {})] * 99
    with pytest.raises(SceneError, match="403") as caught:
        compute(stack_scenes([item], HERE))
    assert caught.value.reason == "unreadable"
    assert len(tokens.given) == 3
    assert "SECRET" not in str(caught.value)


def test_other_blobs_and_other_catalogues_are_not_signed(tokens):
    assert access.signed(BLOB, "https://stac.example.org") == BLOB
    assert access.signed("https://data.example.org/a.tif", PLANETARY) == "https://data.example.org/a.tif"
    assert not tokens.given


# Rasters of absurd size


def absurd_tif(path, *, width, height, tile=None, pixel=PIXEL):
    """Write the head of a georeferenced TIFF that claims any size; its blocks are not there."""
    side = tile or 0
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, int(UTM[5:]))
    tags = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    n_blocks = 1 if tile is None else min(-(-width // tile) * -(-height // tile), 2**32 - 1)
    if tile is None:
        tags += [(273, 4, 8), (278, 4, height), (279, 4, 1000)]
    else:
        tags += [(322, 4, side), (323, 4, side), (324, 4, 8, n_blocks), (325, 4, 8, n_blocks)]
    doubles = {33550: (pixel, pixel, 0.0), 33922: (0.0, 0.0, 0.0, LEFT, TOP, 0.0)}
    start = 8 + 2 + 12 * (len(tags) + len(doubles) + 1) + 4
    entries, data = [], b""
    for number, kind, value, *count in tags:
        entries.append((number, struct.pack("<HHII", number, kind, (*count, 1)[0], value)))
    for number, values in doubles.items():
        entries.append((number, struct.pack("<HHII", number, 12, len(values), start + len(data))))
        data += struct.pack(f"<{len(values)}d", *values)
    entries.append((34735, struct.pack("<HHII", 34735, 3, len(keys), start + len(data))))
    data += struct.pack(f"<{len(keys)}H", *keys)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    path.write_bytes(head + b"".join(entry for _, entry in sorted(entries)) + struct.pack("<I", 0) + data + bytes(4096))
    return path


def huge_png(path, side):
    """Write a PNG of zeros, packed a thousandfold."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(64)) + packer.flush()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


ABSURD = {
    "a block of 4 GB": ({"width": 46_000, "height": 46_000}, "blocks have"),
    "a tile of 4 GB": ({"width": 50_000, "height": 50_000, "tile": 46_080}, "blocks have"),
    "10^9 px a side, one block": ({"width": 10**9, "height": 10**9}, "."),
    "10^9 px a side, tiles": ({"width": 10**9, "height": 10**9, "tile": 512}, "."),
    "10^6 px a side, tiles": ({"width": 10**6, "height": 10**6, "tile": 512}, "."),
}

MEASURE = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from servers.rasters import HERE, compute, make_item
from calfin_cloud.imagery import stack_scenes
from calfin_cloud.schema import SceneError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.monotonic()
    try:
        compute(stack_scenes([make_item(Path(path).parent, {{"nir08": path}})], HERE))
        outcome = "read"
    except SceneError as error:
        outcome = str(error)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{{grown:.0f}}\\t{{time.monotonic() - start:.1f}}\\t{{outcome}}")
"""


def test_rasters_of_absurd_size_are_refused_before_memory_is_taken(tmp_path):
    paths = [absurd_tif(tmp_path / f"{n}.tif", **size) for n, (size, _) in enumerate(ABSURD.values())]
    code = textwrap.dedent(MEASURE.format(tests=os.path.dirname(__file__)))
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True, timeout=600)
    lines = run.stdout.splitlines()
    assert len(lines) == len(ABSURD)
    for (name, (_, words)), line in zip(ABSURD.items(), lines, strict=True):
        megabytes, seconds, outcome = line.split("\t")
        assert words in outcome, name
        assert outcome != "read", name
        assert float(megabytes) < 100, name
        assert float(seconds) < 10, name


def test_file_with_more_pixels_under_the_domain_than_any_scene_is_refused(tmp_path):
    path = absurd_tif(tmp_path / "a.tif", width=40_000, height=40_000, tile=512, pixel=PIXEL / 400)
    with pytest.raises(SceneError, match="pixels under the domain"):
        compute(stack_scenes([make_item(tmp_path, {"nir08": path})], HERE))
    small = write_tif(tmp_path / "b.tif", ramp(), pixel=PIXEL / 400)
    compute(stack_scenes([make_item(tmp_path, {"nir08": small})], HERE))  # no error: it has few pixels at all


def test_image_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = huge_png(tmp_path / "bomb.png", 60_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(SceneError, match="60000 x 60000 pixels"):
        read_image(path)


# Broken and odd images


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_that_breaks_off_gives_no_image(tmp_path, kept, dtype):
    values = np.random.default_rng(0).integers(1, 255, (300, 400)).astype(dtype)
    path = tmp_path / "a.png"
    with rasterio.open(path, "w", driver="PNG", height=300, width=400, count=1, dtype=dtype) as file:
        file.write(values, 1)
    np.testing.assert_array_equal(read_image(path), values)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(SceneError, match="cannot read") as caught:
        read_image(path)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize(("dtype", "value", "words"), [("complex64", 1, "complex"), ("float64", 1e300, "float32")])
def test_numbers_that_are_no_image_are_refused_with_a_reason(tmp_path, dtype, value, words):
    path = write_tif(tmp_path / "a.tif", np.full((96, 96), value, dtype=dtype))
    for read in (lambda: read_image(path), lambda: compute(stack_scenes([image_item(path)], HERE))):
        with pytest.raises(SceneError, match=words) as caught:
            read()
        assert caught.value.reason == "unreadable"


def test_large_numbers_that_float32_holds_are_read(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.full((96, 96), 3e38, dtype="float64"))
    assert (read_image(path) == np.float32(3e38)).all()
    assert (compute(stack_scenes([image_item(path)], HERE))[0, 0] == np.float32(3e38)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_lowest_float_is_missing_where_the_file_does_not_say_so(tmp_path, dtype):
    values = np.random.default_rng(0).uniform(0.0, 1.0, (96, 96)).astype(dtype)
    values[:, :20] = np.finfo("float32").min
    path = write_tif(tmp_path / "a.tif", values)
    expected = np.where(values < 0, np.nan, values).astype("float32")
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(compute(stack_scenes([image_item(path)], HERE))[0, 0], expected)


def image_item(path):
    return make_item(path, {"image": path}, collection="images")


def test_an_image_of_numbered_colours_is_read_as_its_colours(tmp_path):
    grey = np.random.default_rng(0).integers(0, 32, (80, 80)).astype(np.uint8) * 8
    Image.fromarray(grey).save(tmp_path / "grey.png")
    numbered = Image.fromarray(255 - grey, mode="P")
    numbered.putpalette(np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3).tobytes())
    numbered.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), read_image(tmp_path / "grey.png"))
