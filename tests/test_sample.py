"""Synthetic glaciers: the truth is where the picture says, and the catalogue reads back onto the domain."""

import hashlib
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy.ndimage import map_coordinates
from shapely.geometry import LineString

from calfin_cloud.domains import read_domains
from calfin_cloud.imagery import scene_fractions, stack_scenes
from calfin_cloud.sample import paint_scene, write_real_sample, write_sample
from calfin_cloud.scenes import search_scenes

SHAPE = (160, 192)
N_SCENES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder of a sample with a full round of satellites."""
    folder = tmp_path_factory.mktemp("sample")
    assert write_sample(folder, scenes=N_SCENES, seed=1) == folder / "catalog.json"
    return folder


@pytest.fixture(scope="module")
def domain(folder):
    """Domain of the sample."""
    (domain,) = read_domains(folder / "domains.geojson")
    return domain


@pytest.fixture(scope="module")
def truth(folder) -> gpd.GeoDataFrame:
    """True fronts by scene."""
    return gpd.read_parquet(folder / "truth.parquet").set_index("scene_id")


@pytest.fixture(scope="module")
def scenes(folder, domain):
    """Scenes of the sample, read back onto the domain."""
    return stack_scenes(search_scenes(folder / "catalog.json", domain, "1985/2023"), domain).compute(scheduler="sync")


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def walk_along(line: LineString, seaward: np.ndarray, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Points on the inner 80 % of a line and the unit normals there that point seaward, each (n, 2)."""
    at = np.linspace(0.1, 0.9, n)
    before, here, after = (
        shapely.get_coordinates(line.interpolate(at + d, normalized=True)) for d in (-0.004, 0, 0.004)
    )
    along = after - before
    normal = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1)[:, None]
    return here, normal * np.sign(normal.mean(axis=0) @ seaward)


# One painted scene


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["optical", "sar"]), bare=st.booleans())
def test_the_ice_mask_flips_across_the_front_and_nowhere_else_in_the_fjord(seed, kind, bare):
    scene = paint_scene(np.random.default_rng(seed), SHAPE, kind=kind, bare=bare)
    line = LineString(scene.front + 0.5)  # rasterio counts from the pixel's corner
    near = rasterize([line.buffer(1.0)], out_shape=SHAPE, all_touched=True).astype(bool)
    fjord, ice = scene.fjord, scene.ice
    for axis in (0, 1):
        here, there = (tuple(slice(*cut) if k == axis else slice(None) for k in (0, 1)) for cut in ((0, -1), (1, None)))
        flips = fjord[here] & fjord[there] & (ice[here] != ice[there])
        assert not (flips & ~near[here] & ~near[there]).any()
    inside = (scene.front >= 3).all(axis=1) & (scene.front < np.array(SHAPE[::-1]) - 4).all(axis=1)
    middle = scene.front[inside][inside.sum() // 4 : inside.sum() * 3 // 4]
    for x, y in middle[::40].round().astype(int):
        assert len(np.unique(ice[y - 2 : y + 3, x - 2 : x + 3])) == 2


@pytest.mark.parametrize("seed", range(6))
def test_land_is_ice_and_both_ends_of_the_front_lie_on_the_fjord_wall(seed):
    scene = paint_scene(np.random.default_rng(seed), (256, 256))
    assert scene.ice[~scene.fjord].all()
    for x, y in scene.front[[0, -1]].round().astype(int):
        if 2 <= x < 253 and 2 <= y < 253:
            assert len(np.unique(scene.fjord[y - 2 : y + 3, x - 2 : x + 3])) == 2


@pytest.mark.parametrize("kind", ["optical", "sar"])
def test_the_same_seed_paints_the_same_bytes_and_another_another_picture(kind):
    first, again, other = (paint_scene(np.random.default_rng(seed), SHAPE, kind=kind) for seed in (5, 5, 6))
    for name in ("signal", "front", "ice", "fjord", "cloud"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
    assert not np.array_equal(first.signal, other.signal)


@pytest.mark.parametrize(("kind", "low", "high"), [("optical", 0, 1), ("sar", -60, 30)])
def test_signal_is_float32_in_its_unit_without_gaps(kind, low, high):
    signal = paint_scene(np.random.default_rng(2), SHAPE, kind=kind).signal
    assert signal.dtype == np.float32
    assert signal.shape == SHAPE
    assert low <= signal.min() < signal.max() <= high


@pytest.mark.parametrize("seed", range(5))
def test_a_cloudy_scene_is_15_to_60_percent_cloud_and_brighter_there_than_water(seed):
    scene = paint_scene(np.random.default_rng(seed), SHAPE, cloudy=True)
    assert 0.15 <= scene.cloud.mean() <= 0.6
    clear = paint_scene(np.random.default_rng(seed), SHAPE)
    assert not clear.cloud.any()
    dark = scene.cloud & (clear.signal < 0.1)
    if dark.any():
        assert scene.signal[dark].mean() > clear.signal[dark].mean() + 0.1


def test_stripes_are_missing_where_asked_for_and_wider_on_one_side():
    rng = np.random.default_rng(3)
    missing = np.isnan(paint_scene(rng, (512, 512), slc_off=True).signal)
    assert 0.12 < missing.mean() < 0.26
    assert missing[:, -128:].mean() > 1.3 * missing[:, :128].mean()


def test_the_brightness_of_bare_coasts_does_not_tell_them_from_ice():
    def contrast(bare):
        scenes = [paint_scene(np.random.default_rng(seed), SHAPE, bare=bare) for seed in range(12)]
        return np.median([abs(np.median(s.signal[~s.fjord]) - np.median(s.signal[s.fjord & s.ice])) for s in scenes])

    assert contrast(bare=True) < 0.5 * contrast(bare=False)


@pytest.mark.parametrize(
    "options", [{"kind": "thermal"}, {"kind": "sar", "cloudy": True}, {"kind": "sar", "slc_off": True}]
)
def test_what_no_satellite_sees_is_refused(options):
    with pytest.raises(ValueError, match="neither clouds nor stripes"):
        paint_scene(np.random.default_rng(0), SHAPE, **options)


def test_a_picture_too_small_for_a_glacier_is_refused():
    with pytest.raises(ValueError, match="at least 32 pixels"):
        paint_scene(np.random.default_rng(0), (512, 16))


# The sample


def test_every_link_of_the_catalogue_is_relative_and_leads_somewhere(folder):
    catalog = pystac.Catalog.from_file(str(folder / "catalog.json"))
    items = list(catalog.get_items(recursive=True))
    assert len({item.id for item in items}) == N_SCENES
    for path in folder.rglob("*.json"):
        for link in pystac.StacIO.default().read_json(str(path))["links"]:
            if link["rel"] != "self":
                assert link["href"].startswith(".")
                assert (path.parent / link["href"]).exists()
    for item in items:
        own_folder = Path(item.get_self_href()).parent
        assert all((own_folder / asset.href).exists() and asset.href.startswith("./") for asset in item.assets.values())


def test_items_look_like_those_of_the_real_catalogues(folder):
    keys = {"landsat-c2-l2": {"nir08", "qa_pixel"}, "sentinel-2-l2a": {"nir", "scl"}, "sentinel-1-rtc": {"hh"}}
    items = list(pystac.Catalog.from_file(str(folder / "catalog.json")).get_items(recursive=True))
    assert {item.collection_id for item in items} == set(keys)
    for item in items:
        assert set(item.assets) == keys[item.collection_id]
        assert 1985 <= item.datetime.year <= 2023
        for asset in item.assets.values():
            with rasterio.open(Path(item.get_self_href()).parent / asset.href) as file:
                assert file.crs.to_epsg() == item.properties["proj:epsg"]
                assert list(file.transform)[:6] == item.properties["proj:transform"]
                assert list(file.shape) == item.properties["proj:shape"]
                assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert file.overviews(1)
                band = asset.extra_fields["raster:bands"][0]
                assert (file.nodata, file.dtypes[0]) == (band["nodata"], band["data_type"])


def test_scenes_cover_the_domain_at_three_resolutions(folder, scenes):
    items = list(pystac.Catalog.from_file(str(folder / "catalog.json")).get_items(recursive=True))
    assert {item.properties["proj:transform"][0] for item in items} == {20, 30, 40}
    has_gaps = scenes.slc_off_possible.values
    assert scenes.shape[-2:] == (400, 400)
    assert np.isfinite(scenes.sel(band="signal")[~has_gaps]).all()
    is_radar = scenes.sensor_kind.values == "sar"
    assert np.isfinite(scenes.sel(band="cloud")[~is_radar & ~has_gaps]).all()


def test_fronts_read_back_within_half_a_pixel_of_the_truth(scenes, domain, truth):
    seaward = np.diff(shapely.get_coordinates(domain.centerline)[[0, -1]], axis=0)[0]
    steps = np.arange(-8, 8.01, 0.25)
    errors = {}
    for scene, whole in zip(scenes.sel(band="signal"), scenes, strict=True):
        if np.isnan(scene).any() or fractions_of(whole)["cloud_fraction"] > 0.15:
            continue
        points, normals = walk_along(truth.geometry[scene.scene_id.item()], seaward)
        signal = 10 ** (scene.values / 10) if scene.sensor_kind == "sar" else scene.values
        profile = np.empty(len(steps))
        for k, step in enumerate(steps):
            columns, rows = ~domain.grid.transform * tuple((points + normals * step * domain.resolution_m).T)
            profile[k] = np.median(map_coordinates(signal, [rows - 0.5, columns - 0.5], order=1))
        falls = np.where(np.abs(steps) < 4, -np.gradient(profile), 0)
        errors[scene.scene_id.item()] = steps[np.argmax(falls)]
    assert len(errors) == N_SCENES - 2
    assert np.abs(list(errors.values())).max() <= 0.5, errors
    assert abs(np.mean(list(errors.values()))) < 0.2


def fractions_of(scene) -> dict[str, float]:
    """Fractions of one scene of the stack."""
    return scene_fractions(scene.values, slc_off_possible=bool(scene.slc_off_possible))


def test_one_scene_is_cloudy_and_the_quality_bands_say_so(scenes):
    clouds = np.array([fractions_of(scene)["cloud_fraction"] for scene in scenes])
    is_radar = scenes.sensor_kind.values == "sar"
    assert np.isnan(clouds[is_radar]).all()
    assert (clouds > 0.15).sum() == 1
    assert (clouds[~is_radar & ~(clouds > 0.15)] < 0.1).all()


def test_stripes_are_only_in_a_landsat_7_scene_after_may_2003(scenes):
    fractions = [fractions_of(scene) for scene in scenes]
    striped = [k for k, f in enumerate(fractions) if f["nodata_fraction"] > 0]
    assert len(striped) == 1
    scene = scenes[striped[0]]
    assert scene.platform == "landsat-7"
    assert scene.time.values > np.datetime64("2003-05-31")
    assert 0.15 < fractions[striped[0]]["slc_off_fraction"] <= fractions[striped[0]]["nodata_fraction"] < 0.22


def test_the_front_advances_and_retreats_inside_the_domain(domain, truth):
    assert truth.crs == domain.crs
    assert list(truth.columns) == ["datetime", "glacier_id", "geometry"]
    assert truth["datetime"].is_monotonic_increasing
    assert truth.within(domain.polygon).all()
    assert (truth.geom_type == "LineString").all()
    moves = np.diff([domain.centerline.project(line.intersection(domain.centerline)) for line in truth.geometry])
    assert (moves > 0).any()
    assert (moves < 0).any()


def test_a_sample_is_the_same_for_the_same_seed(tmp_path):
    for name, seed in (("first", 4), ("again", 4), ("other", 5)):
        write_sample(tmp_path / name, scenes=2, seed=seed)
    first = digests(tmp_path / "first")
    assert first == digests(tmp_path / "again")
    assert first["truth.parquet"] != digests(tmp_path / "other")["truth.parquet"]


def test_one_scene_is_a_clear_one(tmp_path):
    catalog = write_sample(tmp_path / "one", scenes=1, seed=0)
    (domain,) = read_domains(catalog.parent / "domains.geojson")
    (scene,) = stack_scenes(search_scenes(catalog, domain, "1985/2023"), domain).compute(scheduler="sync")
    fractions = fractions_of(scene)
    assert fractions["cloud_fraction"] < 0.1
    assert fractions["nodata_fraction"] == 0


def test_a_sample_without_scenes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="1 to 2000 scenes, got 0"):
        write_sample(tmp_path, scenes=0)


# --- the real scene ---------------------------------------------------------------------------------------------------


def test_the_real_sample_is_found_in_its_catalogue_and_says_whose_it_is(tmp_path):
    catalog = write_real_sample(tmp_path)
    (domain,) = read_domains(tmp_path / "domains.geojson")
    (item,) = search_scenes(catalog, domain, "2021")
    assert len(domain.termini) == 13
    signal = stack_scenes([item], domain).isel(time=0).sel(band="signal").compute(scheduler="sync")
    assert signal.notnull().all()
    reference = gpd.read_parquet(tmp_path / "reference.parquet")
    assert (len(reference), reference.crs.to_epsg()) == (159, 3413)
    assert set(reference["author"]) == {"Loebel et al. (2024)"}
    assert "U.S. Geological Survey" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "MIT License" in (tmp_path / "LICENSE.md").read_text(encoding="utf-8")
    before = digests(tmp_path)
    write_real_sample(tmp_path)
    assert digests(tmp_path) == before


def test_the_real_scene_is_the_one_of_its_source_and_small(shared, tmp_path):
    write_real_sample(tmp_path)
    (scene,) = tmp_path.rglob("*.tif")
    assert scene.read_bytes() == (shared / "data/harald_moltke/derived_basemap_cog.tif").read_bytes()
    assert scene.stat().st_size < 5_000_000
    source = gpd.read_parquet(shared / "data/harald_moltke/derived_fronts_2019-2021.parquet")
    kept = gpd.read_parquet(tmp_path / "reference.parquet")
    assert max(shapely.hausdorff_distance(source.geometry.to_numpy(), kept.geometry.to_numpy())) < 3.1
