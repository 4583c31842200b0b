"""A file that names others makes nobody open them: 0 decoys opened on disk, 0 asked for on a server."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from hostile import ASCII, DOUBLE, decoy, geo_tags, jpeg2000, metadata_xml, opened_in, tiff
from odc.geo.geobox import GeoBox
from servers.files import serve_folder
from servers.rasters import HERE, LEFT, TOP, UTM, make_item, ramp, read_one

from calfin_cloud.domains import Domain
from calfin_cloud.imagery import read_image, retries
from calfin_cloud.imagery.files import GDAL_SETTINGS
from calfin_cloud.schema import SceneError

COARSE = Domain("coarse", GeoBox((64, 64), Affine(64.0, 0, LEFT, 0, -64.0, TOP), UTM))  # asks for an overview


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setitem(GDAL_SETTINGS, "GDAL_HTTP_RETRY_DELAY", 0.05)
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.02)


@pytest.fixture
def trap(tmp_path):
    """Folders with a server each: one of scenes, one of decoys; `names` are ways to name a decoy."""
    scenes, decoys = tmp_path / "scenes", tmp_path / "decoys"
    scenes.mkdir()
    decoys.mkdir()
    path = decoy(decoys / "decoy.tif")
    (decoys / "grid.gsb").write_bytes(b"NUM_OREC" + bytes(200))
    with serve_folder(scenes) as site, serve_folder(decoys) as other:
        vrt = (
            '<VRTDataset rasterXSize="96" rasterYSize="96"><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRas'
            f'terBand"><SourceFilename relativetoVRT="0">{path}</SourceFilename></VRTRasterBand></VRTDataset>'
        )
        (decoys / "decoy.vrt").write_text(vrt)
        names = {
            "a path": str(path),
            "a path beside": ":::BASE:::/../../decoys/decoy.tif",
            "a part of a file": f"/vsisubfile/0_100,{path}",
            "an address": f"/vsicurl/{other.url}/decoy.tif",
            "a bare address": f"{other.url}/decoy.tif",
            "a VRT": str(decoys / "decoy.vrt"),
            "a VRT on a server": f"/vsicurl/{other.url}/decoy.vrt",
            "a VRT in line": vrt,
            "an image of a file": f"GTIFF_DIR:1:{path}",
        }
        yield SimpleNamespace(scenes=scenes, decoys=decoys, site=site, other=other, names=names)


def outcomes(trap, path, *, may_open=frozenset()):
    """What becomes of a file read from disk and from a server, fine and coarse, and as a plain image."""
    told = []
    hrefs = {str(trap.scenes): str(path), f"{trap.site.url}/c.json": f"{trap.site.url}/{path.name}"}
    with opened_in(trap.decoys) as names:
        for (catalog, href), domain in itertools.product(hrefs.items(), (HERE, COARSE)):
            told.append(outcome(lambda c=catalog, h=href, d=domain: read_one(make_item(c, {"nir08": h}), d)))
        told.append(outcome(lambda: read_image(path)))
    assert set(names) <= may_open
    assert trap.other.requests.total() == 0
    assert set(trap.site.requests) <= {path.name}
    return told


def outcome(read):
    try:
        read()
    except SceneError as error:
        return error.reason
    return "read"


NAMES = (
    *("a path", "a path beside", "a part of a file", "an address", "a bare address", "a VRT", "a VRT on a server"),
    *("a VRT in line", "an image of a file"),
)


@pytest.mark.parametrize("named_by", NAMES)
@pytest.mark.parametrize("domain", ["OVERVIEWS", "overviews"])
@pytest.mark.parametrize("format_", ["TIFF", "TIFF with overviews", "JPEG 2000"])
def test_overviews_in_another_file_are_not_opened(trap, named_by, domain, format_):
    items = {domain: {"OVERVIEW_FILE": trap.names[named_by]}}
    if format_ == "JPEG 2000":
        path = jpeg2000(trap.scenes / "a.jp2", metadata_xml(items, root="GDALMultiDomainMetadata"))
    else:
        pages = [[]] if "with" in format_ else []
        path = tiff(trap.scenes / "a.tif", [*geo_tags(), (42112, ASCII, metadata_xml(items))], *pages)
    assert outcomes(trap, path) == ["refused_address"] * 5


def test_without_our_check_gdal_opens_them(trap):
    items = {"OVERVIEWS": {"OVERVIEW_FILE": trap.names["a path"]}}
    path = tiff(trap.scenes / "a.tif", [*geo_tags(), (42112, ASCII, metadata_xml(items))])
    with opened_in(trap.decoys) as names, rasterio.Env(**GDAL_SETTINGS), rasterio.open(path) as file:
        file.overviews(1)
    assert "decoy.tif" in names


@pytest.mark.parametrize("named_by", ["a path", "an address", "a VRT in line"])
@pytest.mark.parametrize("has_place", [True, False])
def test_coordinates_in_another_file_are_not_opened(trap, named_by, has_place):
    name = trap.names[named_by]
    items = {"GEOLOCATION": {"X_DATASET": name, "Y_DATASET": name, "X_BAND": "1", "Y_BAND": "1", "SRS": "EPSG:4326"}}
    items["GEOLOCATION"] |= {"PIXEL_OFFSET": "0", "LINE_OFFSET": "0", "PIXEL_STEP": "1", "LINE_STEP": "1"}
    place = geo_tags()
    path = tiff(trap.scenes / "a.tif", [*(place if has_place else place[2:]), (42112, ASCII, metadata_xml(items))])
    assert outcomes(trap, path) == ["refused_address"] * 5


@pytest.mark.parametrize(
    "domain", ["RPC", "IMD", "IMAGERY", "SUBDATASETS", "MASK", "xml:VRT", "PROXY_OVERVIEW_REQUEST"]
)
@pytest.mark.parametrize(
    "key", ["RPC_DEM", "OVERVIEW_FILE", "X_DATASET", "SUBDATASET_1_NAME", "SOURCE_FILENAME", "VRT"]
)
def test_names_elsewhere_in_the_metadata_are_only_words(trap, domain, key):
    items = {domain: {key: trap.names["a path"]}, "": {key: trap.names["an address"]}}
    path = tiff(trap.scenes / "a.tif", [*geo_tags(), (42112, ASCII, metadata_xml(items))], [])
    assert outcomes(trap, path) == ["read"] * 5


@pytest.mark.parametrize("level", ["a band", "an overview"])
def test_names_in_the_metadata_of_a_band_or_an_overview_are_not_opened(trap, level):
    items = {"OVERVIEWS": {"OVERVIEW_FILE": trap.names["a path"]}}
    band = ' sample="0"' if level == "a band" else ""
    tag = (42112, ASCII, metadata_xml(items, band=band))
    pages = ([*geo_tags(), tag], []) if level == "a band" else (geo_tags(), [tag])
    told = outcomes(trap, tiff(trap.scenes / "a.tif", *pages))
    assert told == (["refused_address"] * 5 if level == "a band" else ["read", "refused_address"] * 2 + ["read"])


GRID_NAMED_BY = {
    "PROJ string": ("", ',EXTENSION["PROJ4","+proj=utm +zone=22 +ellps=intl +units=m +no_defs +nadgrids={}"]'),
    "datum": (',EXTENSION["PROJ4_GRIDS","{}"]', ""),
    "file of definitions": ("", ',EXTENSION["PROJ4","+proj=utm +zone=22 +init={}:1"]'),
    "heights": ("", ',EXTENSION["PROJ4","+proj=utm +zone=22 +ellps=intl +units=m +geoidgrids={}"]'),
}


def tiff_with_grid(trap, how):
    """A TIFF whose CRS names a grid file, in one of the ways that GDAL reads back out of a TIFF."""
    in_datum, in_crs = (text.format(trap.decoys / "grid.gsb") for text in GRID_NAMED_BY[how])
    return tiff(
        trap.scenes / "a.tif",
        geo_tags(
            f'ESRI PE String = PROJCS["x",GEOGCS["x",DATUM["x",SPHEROID["x",6378388,297]{in_datum}],PRIMEM["Greenwich",'
            '0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],'
            'PARAMETER["central_meridian",-51],PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],'
            f'PARAMETER["false_northing",0],UNIT["metre",1]{in_crs}]'
        ),
    )


@pytest.mark.parametrize("how", ["PROJ string", "heights"])
def test_grid_files_that_a_crs_names_are_not_opened(trap, how):
    assert outcomes(trap, tiff_with_grid(trap, how)) == ["refused_address"] * 5


@pytest.mark.parametrize("how", ["datum", "file of definitions"])
def test_grid_files_that_proj_tries_as_gdal_reads_the_crs_end_the_reading(trap, how):
    # This happens inside of GDAL's opening, before anyone can look at the CRS; no more than that comes of it.
    told = outcomes(trap, tiff_with_grid(trap, how), may_open={"grid.gsb"})
    assert told == ["refused_address"] * 5


SIDE_FILES = [
    *("a.tif.aux.xml", "a.aux.xml", "a.aux", "a.tif.aux", "a.tif.ovr", "a.ovr", "a.tif.msk", "a.tif.ovr.msk"),
    *("a.tfw", "a.tifw", "a.wld", "a.tab", "a.tif.xml", "a.xml", "a.IMD", "a.RPB", "a_RPC.TXT", "a_rpc.txt"),
    *("a.tif.vat.dbf", "a.rrd", "a_MTL.txt", "METADATA.DIM", "a.pvl", "a_metadata.txt", "a.prj", "a.tif.gml"),
]


@pytest.mark.parametrize("format_", ["tif", "png", "jp2"])
def test_nothing_beside_a_file_is_looked_for(trap, format_):
    path = trap.scenes / f"a.{format_}"
    if format_ == "tif":
        tiff(path, geo_tags(), [])
    elif format_ == "jp2":
        jpeg2000(path, "<a/>")
    else:
        profile = {"driver": "PNG", "height": 96, "width": 96, "count": 1, "dtype": "uint16"}
        with rasterio.Env(GDAL_PAM_ENABLED=False), rasterio.open(path, "w", **profile) as file:
            file.write(ramp(), 1)
    for name in SIDE_FILES:
        decoy(trap.scenes / name.replace("a.tif", f"a.{format_}"))
    with opened_in(trap.scenes) as names:
        told = outcomes(trap, path)
    assert set(names) == {path.name}
    assert told == (["unreadable"] * 4 if format_ == "png" else ["read"] * 4) + ["read"]


@pytest.mark.parametrize("after", range(1, 12))
def test_a_server_that_answers_otherwise_later_makes_us_open_nothing(trap, after):
    items = {"OVERVIEWS": {"OVERVIEW_FILE": trap.names["a path"]}}
    tag = (42112, ASCII, metadata_xml(items))
    tiff(trap.scenes / "a.tif", geo_tags(), [])
    tiff(trap.scenes / "other.tif", [*geo_tags(), tag], [tag])
    trap.site.later["a.tif"] = (after, "other.tif")
    with opened_in(trap.decoys) as names:
        outcome(lambda: read_one(make_item(f"{trap.site.url}/c.json", {"nir08": f"{trap.site.url}/a.tif"}), COARSE))
    assert names == []
    assert trap.site.requests["a.tif"] > 2


def test_a_file_that_names_none_is_read_as_it_is(trap):
    path = tiff(trap.scenes / "a.tif", geo_tags())
    item = make_item(trap.scenes, {"nir08": str(path)})
    np.testing.assert_array_equal(read_one(item, HERE)[0], ramp())
    np.testing.assert_array_equal(read_image(Path(path)), ramp())


def test_ground_control_points_name_no_file(trap):
    points = [v for x, y in ((0, 0), (96, 0), (0, 96), (96, 96)) for v in (x, y, 0.0, LEFT + 30 * x, TOP - 30 * y, 0.0)]
    path = tiff(trap.scenes / "a.tif", [(33922, DOUBLE, points), geo_tags()[2]])
    assert outcomes(trap, path) == ["read"] * 5
