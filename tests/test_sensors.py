"""The table names the band that shows ice in real items of every sensor, and real quality bands decode."""

import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pystac
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calfin_cloud import sensors
from calfin_cloud.schema import SceneError
from calfin_cloud.sensors import (
    BQA,
    QA_PIXEL,
    SCL,
    SENSORS,
    Band,
    acquired,
    band_of,
    cloud_from_quality,
    further_bands_of,
    is_slc_off,
    item_of,
    kind_of,
)

MSS, L2 = "stactools-landsat/examples/landsat-c2-l1", "stactools-landsat/examples/landsat-c2-l2"
OLD, S2 = "stactools-landsat/tests/data-files", "stactools-sentinel2/tests/data-files"
ALASKA = "odc-stac/tests/data/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531"
SLC = "S1A_IW_SL1__1_SH_20141031T095929_20141031T100002_003072_003842"
ODC, PC, S1 = "odc-stac/tests/data", "stac-geoparquet/tests/data", "stactools-sentinel1/examples/grd"
# The end of the address is what the file on the server is called, so it says the band whatever the asset's key is.
REAL = [
    (f"{MSS}/LM01_L1GS_001010_19720908_02_T2", "nir09", "B7.TIF", "qa_pixel", (1, 0)),
    (f"{MSS}/LM02_L1GS_001004_19750411_02_T2", "nir09", "B7.TIF", "qa_pixel", (1, 0)),
    (f"{MSS}/LM03_L1GS_001001_19780510_02_T2", "nir09", "B7.TIF", "qa_pixel", (1, 0)),
    (f"{MSS}/LM04_L1GS_001001_19830527_02_T2", "nir09", "B4.TIF", "qa_pixel", (1, 0)),
    (f"{MSS}/LM05_L1GS_001001_19850524_02_T2", "nir09", "B4.TIF", "qa_pixel", (1, 0)),
    (f"{OLD}/mss/LM01_L1GS_001010_19720908_20200909_02_T2_stac.json", "nir09", "B7.TIF", "qa_pixel", (1, 0)),
    (f"{L2}/LT04_L2SP_002026_19830110_02_T1", "nir08", "SR_B4.TIF", "qa_pixel", (2.75e-5, -0.2)),
    (f"{L2}/LT05_L2SP_010067_19860424_02_T2", "nir08", "SR_B4.TIF", "qa_pixel", (2.75e-5, -0.2)),
    (f"{L2}/LE07_L2SP_021030_20100109_02_T1", "nir08", "SR_B4.TIF", "qa_pixel", (2.75e-5, -0.2)),
    (f"{L2}/LC08_L2SP_047027_20201204_02_T1", "nir08", "SR_B5.TIF", "qa_pixel", (2.75e-5, -0.2)),
    (f"{L2}/LC09_L2SP_010065_20220129_02_T1", "nir08", "SR_B5.TIF", "qa_pixel", (2.75e-5, -0.2)),
    (f"{ODC}/LC08_L2SR_081119_20200101_20200823_02_T2.json", "SR_B5.TIF", "SR_B5.TIF", "QA_PIXEL.TIF", (2.75e-5, -0.2)),
    (f"{ODC}/LE07_L2SP_044033_20210329_20210424_02_T1_SR.json", "nir08", "SR_B4.TIF", "qa_pixel", (2.75e-5, -0.2)),
    (f"{ODC}/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json", "nir08", "SR_B5.TIF", "qa_pixel", (2.75e-5, -0.2)),
    (f"{PC}/landsat-c2-l1-pc.json", "nir09", "B4.TIF", "qa_pixel", (1, 0)),
    (f"{PC}/landsat-c2-l2-pc.json", "nir08", "SR_B5.TIF", "qa_pixel", (2.75e-5, -0.2)),
    (f"{PC}/sentinel-2-l2a-pc.json", "B08", "B08_10m.tif", "SCL", (1e-4, -0.1)),
    (f"{ALASKA}.json", "B08", "B08_10m.tif", "SCL", (1e-4, 0)),
    (f"{ALASKA}_raster_ext.json", "B08", "B08_10m.tif", "SCL", (1e-4, 0)),
    (f"{S2}/S2A_T60CWS_20240109T203651_L2A/expected_output.json", "nir", "R10m/B08.jp2", "scl", (1e-4, -0.1)),
    (f"{S2}/S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126.SAFE", "nir", "B08_10m.tif", "scl",
     (1e-4, -0.1)),
    (f"{S2}/S2B_MSIL2A_20191228T210519_N0212_R071_T01CCV_20201003T104658.SAFE", "nir", "B08_10m.tif", "scl", (1e-4, 0)),
    ("pystac/extensions/eo/tests/data-files/eo-sentinel2-item.json", "B08", "B08.jp2", None, (1, 0)),
    (f"{PC}/sentinel-1-rtc-pc.json", "vv", "iw-vv.rtc.tiff", None, (1, 0)),
    (f"{S1}/S1A_EW_GRDM_1SDH_20221130T014342_20221130T014446_046117_058549", "hh", "ew-hh.tiff", None, (1, 0)),
    (f"{S1}/S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13", "vv", "001.tiff", None, (1, 0)),
]  # fmt: skip


def read_items(folder, name):
    path = folder / "data" / "stac_items" / name
    content = json.loads((path if path.is_file() else next(path.glob("*.json"))).read_text())
    features = content.get("features", [content]) if isinstance(content, dict) else content
    return [pystac.Item.from_dict(feature, migrate=True) for feature in features]


@pytest.mark.parametrize(("name", "key", "file", "quality", "scale_offset"), REAL, ids=[row[0][-40:] for row in REAL])
def test_real_item_names_the_band_that_shows_ice(shared, name, key, file, quality, scale_offset):
    for item in read_items(shared, name):
        band = band_of(item)
        assert band.asset == key
        assert item.assets[key].href.endswith(file)
        assert band.quality_asset == quality
        assert (band.scale, band.offset) == scale_offset
        assert band.kind == ("sar" if "S1" in item.id else "optical")
        assert band.slc_off_possible == item.id.startswith("LE07")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{OLD}/assets/LC08_L2SP_005009_20150710_20200908_02_T2_ST_stac.json", "SR_B5.*ST_B10"),
        (f"stactools-sentinel1/examples/slc/{SLC}", "sentinel1-slc"),
        ("pystac/extensions/file/tests/data-files/item.json", "measurement"),
    ],
)  # fmt: skip
def test_real_item_without_such_a_band_says_what_it_has(shared, name, words):
    with pytest.raises(SceneError, match=words) as caught:
        band_of(read_items(shared, name)[0])
    assert caught.value.reason == "no_band"


def make_item(id_, keys, *, collection=None, date=datetime(2020, 1, 1, tzinfo=UTC), bands=None, **properties):
    item = pystac.Item(id_, None, None, date, properties, collection=collection)
    for key in keys:
        extra = {"raster:bands": bands} if bands else None
        item.add_asset(key, pystac.Asset(f"https://example.org/{key}", extra_fields=extra))
    return item


@pytest.mark.parametrize(
    ("platform", "more", "expected"),
    [
        ("landsat-1", {}, "B7"),
        ("LANDSAT_3", {}, "B7"),
        ("landsat-5", {"instruments": ["mss"]}, "B4"),
        ("landsat-4", {"instruments": ["tm"]}, "B4"),
        ("landsat-7", {}, "B4"),
        ("LANDSAT_8", {}, "B5"),
        ("landsat-9", {}, "B5"),
    ],
)
def test_landsat_without_its_usual_id_is_known_by_platform_and_instrument(platform, more, expected):
    keys = [f"B{n}" for n in range(1, 8)]
    item = make_item("my-scene", keys, collection="landsat-c2-l1", platform=platform, **more)
    assert band_of(item).asset == expected


@pytest.mark.parametrize(
    ("platform", "kind"),
    [
        ("Sentinel-1A", "sar"),
        ("sentinel-2b", "optical"),
        ("TSX", "sar"),
        ("ERS-2", "sar"),
        ("landsat-8", "optical"),
        ("planetscope", "optical"),
        ("unknown", "optical"),
        (None, "optical"),
    ],
)
def test_a_file_of_the_user_is_of_the_kind_of_its_satellite(platform, kind):
    assert kind_of(make_item("x", ["image"], collection="images", platform=platform)) == kind


def test_the_kind_of_an_item_of_no_known_sensor_is_unknown():
    assert kind_of(make_item("x", ["vv"], collection="weather")) == "unknown"
    assert kind_of(make_item("x", ["vv"], collection="sentinel-1-grd")) == "sar"


def test_horizontal_polarisation_goes_before_vertical():
    assert band_of(make_item("x", ["vv", "hh", "hv"], collection="sentinel-1-grd")).asset == "hh"
    assert band_of(make_item("x", ["vv", "vh"], collection="sentinel-1-grd")).asset == "vv"
    with pytest.raises(SceneError, match="'vh'"):
        band_of(make_item("x", ["vh"], collection="sentinel-1-grd"))


@pytest.mark.parametrize(
    ("properties", "bands", "offset"),
    [
        ({"s2:processing_baseline": "03.01"}, None, 0.0),
        ({"s2:processing_baseline": "04.00"}, None, -0.1),
        ({"s2:processing_baseline": "05.11"}, None, -0.1),
        ({"processing:version": "02.14"}, None, 0.0),  # so Copernicus calls it
        ({"processing:version": "05.11"}, None, -0.1),
        ({"s2:processing_baseline": "05.11"}, [{"scale": 1e-4, "offset": -0.1}], -0.1),
        ({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": True}, [{"offset": -0.1}], 0.0),
        ({"s2:processing_baseline": "05.11", "earthsearch:boa_offset_applied": False}, [{"offset": -0.1}], -0.1),
        ({"s2:processing_baseline": "05.11"}, [{"raster:scale": 1e-4, "raster:offset": -0.1}], -0.1),
        ({}, [{"nodata": 0, "offset": None}], 0.0),
    ],
)
def test_sentinel2_offset_follows_baseline_and_catalogue(properties, bands, offset):
    item = make_item("S2A_X", ["nir"], collection="sentinel-2-l2a", bands=bands, **properties)
    band = band_of(item)
    assert (band.scale, band.offset) == (1e-4, offset)
    np.testing.assert_allclose(band.signal([[0, 1000, 5000]]), [[np.nan, 0.1 + offset, 0.5 + offset]], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"bands": [{"name": "nir08", "raster:scale": 1e-3, "raster:offset": -0.5}]}, (1e-3, -0.5)),  # STAC 1.1
        ({"bands": [{"name": "nir08"}], "raster:scale": 1e-3, "raster:offset": -0.5}, (1e-3, -0.5)),
        ({"raster:bands": [{"scale": None, "offset": None}]}, (2.75e-5, -0.2)),
    ],
)
def test_scale_and_offset_are_taken_from_wherever_an_item_has_them(fields, expected):
    item = make_item("LC08_L2SP_016008_20130724_02_T1", ["nir08"], collection="landsat-c2-l2")
    item.assets["nir08"].extra_fields = fields
    band = band_of(item)
    assert (band.scale, band.offset) == expected


@pytest.mark.parametrize(
    ("id_", "keys", "expected"),
    [
        ("S2B_MSIL2A_20240613T100031_N0510_R122_T33XWJ_20240613T131559", "B08_10m SCL_20m", ("B08_10m", "SCL_20m")),
        ("S2A_MSIL1C_20240731T092031_N0511_R093_T34XEH_20240731T111517", "B03 B08 TCI", ("B08", None)),
        ("S1A_EW_GRDM_1SDH_20240613T080213_20240613T080313_054306_069B0C_3F17_COG", "hh hv", ("hh", None)),
    ],
)
def test_scenes_of_copernicus_are_known_by_its_keys_and_by_their_ids(id_, keys, expected):
    collection = {"S2B": "sentinel-2-l2a", "S2A": "sentinel-2-l1c", "S1A": "sentinel-1-grd"}[id_[:3]]
    for of in (collection, "my-mirror"):
        band = band_of(make_item(id_, keys.split(), collection=of))
        assert (band.asset, band.quality_asset) == expected


def test_colours_of_copernicus_are_known_by_its_keys():
    keys = ["B02_10m", "B03_10m", "B04_10m", "B08_10m"]
    bands = further_bands_of(make_item("S2A_MSIL2A_X", keys, collection="sentinel-2-l2a"))
    assert {name: band.asset for name, band in bands.items()} == {"blue": keys[0], "green": keys[1], "red": keys[2]}


def test_each_collection_and_instrument_has_one_row():
    rows = [(name, code) for row in SENSORS for name in row.collections for code in row.instruments or ("",)]
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize(
    ("platform", "moment", "expected"),
    [
        ("landsat-7", datetime(2003, 5, 31, 12, tzinfo=UTC), False),
        ("landsat-7", datetime(2003, 6, 1, tzinfo=UTC), True),
        ("LANDSAT_7", datetime(2021, 3, 29), True),
        ("landsat-8", datetime(2021, 3, 29, tzinfo=UTC), False),
        ("landsat-7", None, False),
        ("unknown", datetime(2021, 3, 29, tzinfo=UTC), False),
    ],
)
def test_stripes_are_possible_in_landsat_7_after_may_2003(platform, moment, expected):
    assert is_slc_off(platform, moment) is expected
    if moment is not None:
        assert is_slc_off(make_item("x", [], date=moment, platform=platform)) is expected


@pytest.mark.parametrize(
    ("id_", "platform"),
    [("LE07_L2SP_044033_20210329", "unknown"), ("crane-20210329", "landsat-7"), ("crane-20210329", "LANDSAT_7")],
)
def test_a_file_of_landsat_7_may_have_stripes_by_its_name_or_by_the_platform_that_the_user_names(id_, platform):
    item = make_item(id_, ["image"], collection="images", date=datetime(2021, 3, 29), platform=platform)
    assert is_slc_off(item)
    assert band_of(item).slc_off_possible


def test_the_time_of_a_scene_is_in_utc_and_that_of_an_interval_its_start():
    zone = timezone(timedelta(hours=-3))
    assert str(acquired(make_item("x", [], date=datetime(2020, 6, 1, 22, tzinfo=zone)))) == "2020-06-02 01:00:00+00:00"
    assert str(acquired(make_item("x", [], date=datetime(2020, 6, 1, 22)))) == "2020-06-01 22:00:00+00:00"
    interval = {"start_datetime": "2020-06-01T00:00:00Z", "end_datetime": "2020-06-30T00:00:00Z"}
    assert str(acquired(make_item("x", [], date=None, **interval))) == "2020-06-01 00:00:00+00:00"
    item = make_item("x", [])
    item.datetime = None
    with pytest.raises(ValueError, match="neither datetime nor start_datetime"):
        acquired(item)


def test_real_collection_1_band_counts_its_cloud_bit(shared):
    with rasterio.open(shared / "data" / "landsat_bqa_nw_greenland" / "rio-tiler_cog.tif") as file:
        bits = file.read(1)
    cloud = cloud_from_quality(bits, BQA)
    # By hand: bit 4 is in 2800 and 6896; 2976 and 7104 are cloud shadow, 3744 snow, 6816 and above cirrus.
    clear, cloudy = (2720, 2752, 2976, 3008, 3744, 3776, 6816, 6848, 7072, 7104, 7840, 7872), (2800, 6896)
    assert set(np.unique(bits)) == {1, *clear, *cloudy}
    assert np.isnan(cloud[bits == 1]).all()
    assert (cloud[np.isin(bits, cloudy)] == 1).all()
    assert (cloud[np.isin(bits, clear)] == 0).all()
    assert np.isnan(cloud).mean() == (bits == 1).mean()


def test_real_collection_2_band_counts_cloud_and_cirrus(shared):
    folder = shared / "data" / "stac_items" / OLD / "assets"
    with rasterio.open(folder / "LC08_L2SP_005009_20150710_20200908_02_T2_QA_PIXEL.TIF") as file:
        bits = file.read(1)
    cloud = cloud_from_quality(bits, QA_PIXEL)
    # By hand: 22280 has bit 3, 55052 bits 2 and 3; 23826, 24082, 29986, 30242 only dilation; the rest neither.
    assert (cloud[np.isin(bits, (22280, 55052))] == 1).all()
    assert (cloud[np.isin(bits, (23826, 23888, 24082, 24144, 29986, 30048, 30242, 30304))] == 0).all()
    assert np.isnan(cloud[bits == 1]).all()
    assert np.nanmean(cloud) == pytest.approx(np.isin(bits, (22280, 55052)).sum() / (bits != 1).sum())


def test_sentinel2_classes():
    np.testing.assert_array_equal(cloud_from_quality(np.arange(12), SCL), [np.nan, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0])


@given(hnp.arrays(np.float32, (3, 4), elements=st.one_of(st.integers(0, 65535).map(float), st.just(np.nan))))
def test_quality_is_always_cloud_clear_or_unknown_and_bits_count_one_by_one(values):
    for spec in (QA_PIXEL, BQA):
        got = cloud_from_quality(values, spec)
        for value, cloud in zip(values.ravel(), got.ravel(), strict=True):
            if np.isnan(value) or any(int(value) >> bit & 1 for bit in spec.fill):
                assert np.isnan(cloud)
            else:
                assert cloud == any(int(value) >> bit & 1 for bit in spec.cloud)


@given(hnp.arrays(np.float32, (5,), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)))
def test_decibels_undo_to_the_power_and_only_positive_numbers_have_them(values):
    band = band_of(make_item("x_rtc", ["vv"], collection="sentinel-1-rtc"))
    signal = band.signal(values)
    np.testing.assert_array_equal(np.isnan(signal), ~(values > 0))
    np.testing.assert_allclose(10 ** (signal[values > 0].astype(float) / 10), values[values > 0], rtol=1e-4)


def test_band_without_quality_knows_nothing_of_clouds():
    band = band_of(make_item("x", ["image"], collection="images"))
    assert isinstance(band, Band)
    assert np.isnan(band.cloud(np.zeros((2, 3)))).all()
    np.testing.assert_array_equal(band.signal([[-5, 0, np.inf, np.nan]]), [[-5, 0, np.nan, np.nan]])
    assert band.nodata is None


@pytest.mark.parametrize(
    "times",
    [
        {"datetime": "2020-06-01T12:00:00Z"},
        {"datetime": None, "start_datetime": "2020-06-01T00:00:00Z", "end_datetime": "2020-06-30T00:00:00Z"},
    ],
)
def test_an_item_made_of_its_values_is_the_one_that_pystac_makes(times):
    record = make_item("https://stac.example.org", {"nir08": "s3://bucket/a.tif"}).to_dict()
    record["properties"] |= times
    assert item_of(record).to_dict() == pystac.Item.from_dict(record).to_dict()
    assert acquired(item_of(record)) == acquired(pystac.Item.from_dict(record))


# --- a sensor of one's own --------------------------------------------------------------------------------------------


@pytest.fixture
def aster():
    """A row for ASTER, which the table does not know; forgotten afterwards."""
    yield sensors.Sensor(("aster-l1t",), r"AST_L1T", ("VNIR_Band3N",))
    sensors.table._own.clear()


def test_an_own_sensor_is_read_once_it_is_registered_and_goes_before_the_table(aster):
    item = pystac.Item("AST_L1T_1", None, None, datetime(2010, 7, 1, tzinfo=UTC), {}, collection="aster-l1t")
    item.add_asset("VNIR_Band3N", pystac.Asset("a.tif"))
    with pytest.raises(SceneError, match="no known sensor"):
        band_of(item)
    assert "VNIR_Band3N" not in sensors.read_assets()
    sensors.register_sensor(aster)
    sensors.register_sensor(aster)  # twice is once
    assert sensors.own_sensors() == (aster,)
    assert band_of(item).asset == "VNIR_Band3N"
    assert "VNIR_Band3N" in sensors.read_assets()
    sensors.register_sensor(sensors.Sensor(("of-no-ids",), "", ("red",)))  # an empty pattern takes no ids of others
    item.collection_id = None
    assert band_of(item).asset == "VNIR_Band3N"
    red = sensors.Sensor(("sentinel-2-l2a",), r"S2", ("red",))
    sensors.register_sensor(red)
    item = pystac.Item("S2A_x", None, None, datetime(2020, 7, 1, tzinfo=UTC), {}, collection="sentinel-2-l2a")
    item.assets = {"red": pystac.Asset("r.tif"), "nir": pystac.Asset("n.tif")}
    assert band_of(item).asset == "red"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (sensors.Sensor(("a",), "(?!)", ()), "needs assets"),
        (sensors.Sensor((), "", ("b",)), "collections or a pattern"),
        (sensors.Sensor(("a",), "(", ("b",)), "no regular expression"),
        (sensors.Sensor(("a",), "A_", "near"), r"write \('near',\)"),
    ],
)
def test_an_own_sensor_that_applies_nowhere_is_refused(row, words):
    with pytest.raises(ValueError, match=words):
        sensors.register_sensor(row)
    assert sensors.own_sensors() == ()
