"""Icebergs, melange and plumes of one scene: formulas, painted truth, and the states of scenes that show nothing."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, box

from calfin_cloud.feature_schema import FEATURES
from calfin_cloud.features import (
    Bands,
    CfarSettings,
    bright_pixels,
    find_icebergs,
    measure_features,
    measure_melange,
    measure_plume,
    number_of_looks,
    power_law,
    relative_turbidity,
    sea_of,
    sun_zenith_deg,
    threshold,
)
from calfin_cloud.features.icebergs import _in_radar
from calfin_cloud.sample.seascape import reflectance_of

SIDE, PIXEL_M = 200, 20.0
TRANSFORM = Affine(PIXEL_M, 0, 0, 0, -PIXEL_M, SIDE * PIXEL_M)
FRONT = LineString([(400, 0), (400, SIDE * PIXEL_M)])
OCEAN = box(400, 0, SIDE * PIXEL_M, SIDE * PIXEL_M)
SUMMER = 55.0


@pytest.fixture
def sea():
    """Sea east of a straight front along column 20."""
    return sea_of(OCEAN, [FRONT], (SIDE, SIDE), TRANSFORM, pixel_m=PIXEL_M)


def light(nir=0.01, red=0.01, **more) -> Bands:
    """A scene of one level, with reflectance of the surface."""
    values = {"nir": np.full((SIDE, SIDE), nir, np.float32), "red": np.full((SIDE, SIDE), red, np.float32)}
    return Bands("optical", values, at_surface=True, **more)


def with_squares(bands: Bands, *squares: tuple[int, int, int], level=0.35) -> Bands:
    """Paint squares (row, column, side) into all bands."""
    for row, column, side in squares:
        for values in bands.values.values():
            values[row : row + side, column : column + side] = level
    return bands


# The constant false alarm rate


@pytest.mark.parametrize("looks", [1.0, 4.4, 18.0])
def test_false_alarms_in_pure_speckle_are_as_frequent_as_asked_for(looks):
    speckle = np.random.default_rng(int(looks)).standard_gamma(looks, (1500, 1500), np.float32) / np.float32(looks)
    bright, _, found = bright_pixels(speckle, speckle > 0, pixel_m=40.0)
    rate = CfarSettings().false_alarms
    assert found == pytest.approx(looks, rel=0.03)
    assert bright.mean() == pytest.approx(rate, rel=0.2)  # 2,250 are expected: 20 % is nine standard deviations


@pytest.mark.parametrize("looks", [1.0, 4.4])
@pytest.mark.parametrize("names", [("co",), ("co", "cross")])
def test_false_alarms_of_both_polarisations_together_are_as_frequent_as_asked_for(looks, names):
    side, rng = 1500, np.random.default_rng(int(looks))
    power = {n: rng.standard_gamma(looks, (side, side), np.float32) / np.float32(looks) for n in names}
    transform = Affine(PIXEL_M, 0, 0, 0, -PIXEL_M, side * PIXEL_M)
    whole = sea_of(box(0, 0, side * PIXEL_M, side * PIXEL_M), [FRONT], (side, side), transform, pixel_m=PIXEL_M)
    bright, seen, _ = _in_radar(Bands("sar", power), whole, None)
    assert bright[seen].mean() == pytest.approx(CfarSettings().false_alarms, rel=0.2)


def test_the_number_of_looks_does_not_see_icebergs():
    speckle = np.random.default_rng(0).standard_gamma(4.0, 40_000).astype(np.float32) / 4
    with_bergs = np.concatenate([speckle, np.full(800, 30, np.float32)])
    assert number_of_looks(with_bergs) == pytest.approx(4, rel=0.05)


@settings(max_examples=30)
@given(st.floats(0.5, 200), st.floats(1e-7, 1e-2))
def test_a_lower_rate_of_false_alarms_asks_for_brighter_pixels(looks, rate):
    assert threshold(looks, rate / 10) > threshold(looks, rate) > 1


def test_a_bright_object_in_speckle_is_found_and_dark_water_beside_land_is_not_compared_with_land(sea):
    rng = np.random.default_rng(3)
    power = rng.standard_gamma(5.0, (SIDE, SIDE), np.float32) / 5
    power[:, :20] *= 100  # the glacier
    power[100:106, 120:126] *= 30
    found = find_icebergs(Bands("sar", {"co": power}), sea, zenith_deg=95.0)
    (berg,) = [p for p in found["geometry"].geoms if p.area > 30 * PIXEL_M**2]
    assert berg.centroid.x == pytest.approx(123 * PIXEL_M, abs=PIXEL_M)
    assert found["icebergs"] <= 3  # four pixels of speckle seldom meet


@pytest.mark.parametrize(("width_m", "state"), [(1000.0, "not_seen"), (2500.0, "measured")])
def test_sea_that_is_too_narrow_to_compare_a_pixel_with_its_ring_is_not_called_empty_of_icebergs(width_m, state):
    pixel_m = 100.0
    transform = Affine(pixel_m, 0, 0, 0, -pixel_m, SIDE * pixel_m)
    mouth = LineString([(0, 10_000), (0, 10_000 + width_m)])
    fjord = sea_of(box(0, 10_000, 20_000, 10_000 + width_m), [mouth], (SIDE, SIDE), transform, pixel_m=pixel_m)
    power = np.random.default_rng(5).standard_gamma(5.0, (SIDE, SIDE), np.float32) / 5
    found = measure_features(["icebergs"], Bands("sar", {"co": power}), fjord, zenith_deg=95.0)["icebergs"]
    assert found["state"] == state
    if state == "measured":
        assert 0.5 < found["sea_area_m2"] / (fjord.open.sum() * pixel_m**2) < 0.75  # what was judged, not what is there
    else:
        assert found["reason"] == "too_coarse"
        assert "0% of the sea" in found["detail"]


def test_an_iceberg_in_the_cross_polarised_image_alone_is_found_too(sea):
    rng = np.random.default_rng(4)
    co, cross = (rng.standard_gamma(5.0, (SIDE, SIDE), np.float32) / 5 for _ in range(2))
    cross[60:66, 90:96] *= 30
    both = find_icebergs(Bands("sar", {"co": co, "cross": cross}), sea, zenith_deg=95.0)
    alone = find_icebergs(Bands("sar", {"co": co}), sea, zenith_deg=95.0)
    assert both["area_m2"] - alone["area_m2"] >= 30 * PIXEL_M**2


# Icebergs in light


def test_icebergs_have_the_area_and_place_they_were_painted_with(sea):
    found = find_icebergs(with_squares(light(), (50, 60, 5), (120, 150, 10)), sea, zenith_deg=SUMMER)
    assert found["icebergs"] == 2
    assert sorted(found["areas_m2"]) == [25 * PIXEL_M**2, 100 * PIXEL_M**2]
    assert found["area_m2"] == pytest.approx(found["geometry"].area)
    assert [part.area for part in found["geometry"].geoms] == found["areas_m2"]


def test_small_dark_large_and_grounded_objects_are_no_icebergs(sea):
    bands = with_squares(light(), (20, 60, 1), (40, 100, 55), (120, 22, 6))  # 1 px; 1.2 km2; at the front
    bands = with_squares(bands, (150, 150, 8), level=0.19)  # as dark as sea ice
    found = find_icebergs(bands, sea, zenith_deg=SUMMER)
    assert found["icebergs"] == 0
    assert found["geometry"] is None
    assert found["sea_ice_area_m2"] == (55**2 + 36 + 64) * PIXEL_M**2


def test_mixed_pixels_at_its_rim_do_not_make_an_iceberg_sea_ice(sea):
    bands = with_squares(light(), (50, 60, 5), level=0.14)
    found = find_icebergs(with_squares(bands, (51, 61, 3)), sea, zenith_deg=SUMMER)
    assert found["icebergs"] == 1


def test_a_power_law_is_found_back_with_its_error():
    areas = 100 * (1 - np.random.default_rng(1).random(3000)) ** (-1 / 0.9)
    exponent, sigma = power_law(areas, 100.0)
    assert exponent == pytest.approx(1.9, abs=3 * sigma)
    assert np.isnan(power_law(areas[:19], 100.0)).all()


# Melange


def test_melange_reaches_as_far_as_it_was_painted(sea):
    bands = light()
    bands.values["nir"][:, 20:95] = 0.3  # 1500 m from the front
    found = measure_melange(bands, sea, zenith_deg=SUMMER)
    assert found["touches_front"]
    assert found["extent_m"] == 1500
    assert not found["is_cut"]
    assert found["fraction_at_front"] == 1
    assert found["fractions"][4:] == [0.0] * len(found["fractions"][4:])


def test_ice_apart_from_the_front_is_no_melange(sea):
    bands = light()
    bands.values["nir"][:, 60:] = 0.3
    found = measure_melange(bands, sea, zenith_deg=SUMMER)
    assert (found["touches_front"], found["extent_m"], found["geometry"]) == (False, 0.0, None)


def test_melange_to_the_border_of_the_scene_is_cut(sea):
    assert measure_melange(light(nir=0.3), sea, zenith_deg=SUMMER)["is_cut"]


@pytest.mark.parametrize(("hidden", "reason"), [("cloud", "cloudy"), ("nir", "nodata")])
def test_melange_is_not_seen_where_the_first_band_is_hidden_and_cut_at_a_later_one(hidden, reason, sea):
    def hide(first, last):
        bands = light(cloud=np.zeros((SIDE, SIDE), np.float32))
        bands.values["nir"][:, 20:95] = 0.3  # 1500 m from the front
        (bands.cloud if hidden == "cloud" else bands.values["nir"])[:, first:last] = 1 if hidden == "cloud" else np.nan
        return measure_features(["melange"], bands, sea, zenith_deg=SUMMER)["melange"]

    at_front = hide(20, 46)
    assert (at_front["state"], at_front["reason"]) == ("not_seen", reason)
    assert "px of sea within 500 m of the front are seen" in at_front["detail"]
    later = hide(45, 70)
    assert (later["touches_front"], later["extent_m"], later["is_cut"]) == (True, 500, True)
    assert not hide(120, 145)["is_cut"]  # beyond the end of the melange


# Plumes


@settings(max_examples=30)
@given(st.floats(0.1, 400))
def test_turbidity_comes_back_from_the_reflectance_of_its_water(fnu):
    true = np.array([fnu])
    found = relative_turbidity(reflectance_of(true, "red"), reflectance_of(true, "nir"))
    assert found[0] == pytest.approx(fnu, rel=1e-3)


def test_turbidity_switches_from_red_to_near_infrared_between_its_limits():
    red, nir = np.array([0.049, 0.06, 0.071]), np.full(3, 0.02)
    by_red = 228.1 * red / (1 - red / 0.1641)
    by_nir = 3078.9 * nir / (1 - nir / 0.2112)
    expected = [by_red[0], (by_red[1] + by_nir[1]) / 2, by_nir[2]]
    assert relative_turbidity(red, nir) == pytest.approx(expected, rel=1e-5)


def plume_bands(fnu: float) -> Bands:
    """A plume of one turbidity, 1 km wide and 1.2 km long, at the front."""
    turbidity = np.full((SIDE, SIDE), 2.0)
    turbidity[80:130, 20:80] = fnu
    return light(nir=reflectance_of(turbidity, "nir"), red=reflectance_of(turbidity, "red"))


def test_a_plume_at_the_front_has_its_area_extent_and_turbidity(sea):
    found = measure_plume(plume_bands(60.0), sea, zenith_deg=SUMMER)
    assert found["source"] == "front"
    assert found["relative_turbidity_median_fnu"] == pytest.approx(60, rel=0.02)
    assert found["relative_turbidity_ambient_fnu"] == pytest.approx(2, rel=0.02)
    assert found["area_m2"] == pytest.approx(50 * 57 * PIXEL_M**2, rel=0.1)
    assert found["extent_m"] == pytest.approx(1200, abs=60)


@pytest.mark.parametrize(("gap_px", "columns"), [(15, 57 - 15), (40, 12)])
def test_a_plume_goes_on_behind_a_narrow_stripe_without_data_and_not_behind_a_wide_one(gap_px, columns, sea):
    bands = plume_bands(60.0)
    bands.values["red"][:, 35 : 35 + gap_px] = np.nan
    found = measure_plume(bands, sea, zenith_deg=SUMMER)
    assert found["area_m2"] == pytest.approx(50 * columns * PIXEL_M**2, rel=0.1)
    assert found["extent_m"] == pytest.approx(1200 if gap_px == 15 else 300, abs=60)


def test_ice_and_its_rim_are_no_plume(sea):
    iced = with_squares(plume_bands(60.0), (95, 40, 10))
    without = measure_plume(plume_bands(60.0), sea, zenith_deg=SUMMER)
    assert (
        measure_plume(iced, sea, zenith_deg=SUMMER)["area_m2"] <= without["area_m2"] - 14 * 14 * PIXEL_M**2 + 60 * 400
    )


def test_turbid_water_far_from_front_and_coast_is_no_plume(sea):
    turbidity = np.full((SIDE, SIDE), 2.0)
    turbidity[80:130, 100:150] = 60
    bands = light(nir=reflectance_of(turbidity, "nir"), red=reflectance_of(turbidity, "red"))
    assert measure_plume(bands, sea, zenith_deg=SUMMER)["source"] == ""


# The sea and the sun


def test_the_land_of_maps_is_no_sea(sea):
    island = MultiPolygon([box(2000, 2000, 2400, 2400)])
    less = sea_of(OCEAN, [FRONT], (SIDE, SIDE), TRANSFORM, pixel_m=PIXEL_M, land=island)
    assert sea.water.sum() - less.water.sum() == 400
    assert not less.open[sea.water & ~less.water].any()


def test_distances_are_those_from_the_front(sea):
    assert sea.front_m[100, 120] == pytest.approx(100 * PIXEL_M, rel=0.03)


@pytest.mark.parametrize("scene", ["LC09_L2SP_010065_20220129_02_T1", "LC08_L2SP_047027_20201204_02_T1"])
def test_the_sun_stands_where_the_agency_says(scene, shared: Path):
    folder = shared / "data" / "stac_items" / "stactools-landsat"
    item = json.loads(next(folder.rglob(f"{scene}.json")).read_text())
    west, south, east, north = item["bbox"]
    when = datetime.fromisoformat(item["properties"]["datetime"])
    found = sun_zenith_deg(when, (west + east) / 2, (south + north) / 2)
    assert found == pytest.approx(90 - item["properties"]["view:sun_elevation"], abs=0.5)


def test_the_sun_is_below_the_horizon_in_polar_night():
    assert sun_zenith_deg(datetime(2020, 12, 21, 15, tzinfo=UTC), -51.0, 71.0) > 90


# What cannot be measured has a state and a reason, and nothing is raised

NAN = np.full((SIDE, SIDE), np.nan, np.float32)
CLOUDS = np.ones((SIDE, SIDE), np.float32)
STRIPES = np.where(np.arange(SIDE)[:, None] % 10 < 7, np.nan, 0.01) * np.ones((1, SIDE))


@pytest.mark.parametrize(
    ("bands", "zenith", "reasons"),
    [
        (light(), 92.0, ("sun_too_low", "sun_too_low", "sun_too_low")),  # night
        (light(), np.nan, ("sun_too_low", "sun_too_low", "sun_too_low")),
        (Bands("optical", {"nir": NAN, "red": NAN}, at_surface=True), SUMMER, ("nodata",) * 3),
        (light(nir=STRIPES), SUMMER, ("nodata",) * 3),  # seven rows of ten are missing
        (light(cloud=CLOUDS), SUMMER, ("cloudy",) * 3),
        (light(nir=0.35), SUMMER, ("", "", "no_sea")),  # all ice
        (Bands("optical", {"nir": light().values["nir"]}, at_surface=True), SUMMER, ("", "", "no_band")),
        (Bands("optical", {}), SUMMER, ("no_band",) * 3),
        (Bands("optical", light().values), SUMMER, ("", "", "no_band")),  # top of the atmosphere
        (Bands("optical", {}, missing={"nir": ("unreadable", "404")}), SUMMER, ("unreadable",) * 3),
        (Bands("sar", {"co": light().values["nir"]}), SUMMER, ("", "no_band", "no_band")),
        (Bands("unknown", light().values), SUMMER, ("no_band",) * 3),
        (Bands("optical", {"nir": np.ones((3, 3)), "red": np.ones((3, 3))}, at_surface=True), SUMMER, ("error",) * 3),
    ],
)
def test_a_scene_that_shows_nothing_says_why(bands, zenith, reasons, sea):
    found = measure_features(FEATURES, bands, sea, zenith_deg=zenith)
    assert tuple(found[name]["reason"] for name in FEATURES) == reasons
    for columns in found.values():
        assert columns["state"] == ("not_seen" if columns["reason"] else "measured")


def test_a_scene_without_sea_says_so():
    assert sea_of(None, [FRONT], (SIDE, SIDE), TRANSFORM, pixel_m=PIXEL_M) is None
    assert sea_of(box(400, 0, 420, 100), [FRONT], (SIDE, SIDE), TRANSFORM, pixel_m=PIXEL_M) is None
    found = measure_features(FEATURES, light(), None, zenith_deg=SUMMER)
    assert {columns["reason"] for columns in found.values()} == {"no_sea"}


def test_pixels_that_are_too_large_are_refused():
    coarse = Affine(150.0, 0, 0, 0, -150.0, SIDE * 150.0)
    sea = sea_of(box(3000, 0, 30_000, 30_000), [FRONT], (SIDE, SIDE), coarse, pixel_m=150.0)
    found = measure_features(FEATURES, light(), sea, zenith_deg=SUMMER)
    assert {columns["reason"] for columns in found.values()} == {"too_coarse"}


def test_narrow_stripes_hide_nothing_but_themselves(sea):
    bands = with_squares(light(), (50, 60, 5))
    bands.values["nir"][::10] = np.nan
    found = find_icebergs(bands, sea, zenith_deg=SUMMER)
    assert 0 < found["area_m2"] <= 25 * PIXEL_M**2
